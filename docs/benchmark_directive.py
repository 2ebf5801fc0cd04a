"""The directive ``benchmark``: what a script under ``benchmarks/`` printed, so that no number is typed in."""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


class Benchmark(SphinxDirective):
    """``.. benchmark:: name`` shows ``benchmarks/results/name.txt``; ``:script:`` names what writes it."""

    required_arguments = 1
    option_spec = {"script": directives.unchanged}

    def run(self):
        name = self.arguments[0]
        path = RESULTS / f"{name}.txt"
        self.env.note_dependency(str(path))
        if path.is_file():
            return [nodes.literal_block(text=path.read_text(encoding="utf-8"), language="none")]
        script = self.options.get("script", f"{name}.py")
        text = f"Not measured yet: benchmarks/{script} writes benchmarks/results/{name}.txt, which is shown here."
        return [nodes.note("", nodes.paragraph(text=text))]


def setup(app):
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
