"""The directive ``benchmark``: what a script under ``benchmarks/`` printed, so that no number is typed in."""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


class Benchmark(SphinxDirective):
    """``.. benchmark:: name`` shows ``benchmarks/results/name.txt``."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        path = RESULTS / f"{name}.txt"
        self.env.note_dependency(str(path))
        if path.is_file():
            return [nodes.literal_block(text=path.read_text(encoding="utf-8"), language="none")]
        text = f"Not measured yet: benchmarks/{name}.py writes benchmarks/results/{name}.txt, which is shown here."
        return [nodes.note("", nodes.paragraph(text=text))]


def setup(app):
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
