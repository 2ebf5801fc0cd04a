"""Plug-ins are found, listed and isolated; methods are found by name."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_packages import install, packages, toys  # noqa: F401
from toy_methods import ToyReconstructor, ToySimulator

from lensdeblend import methods
from lensdeblend.interfaces import Simulator
from lensdeblend.plugins import (
    Method, MissingDependencyError, PluginWarning, create, manager, method_class, resolve,
)

GOOD = """
    from lensdeblend.plugins import Method, hookimpl

    @hookimpl
    def lensdeblend_simulators():
        yield Method(name="good", target="toy_methods:ToySimulator")
"""

BROKEN = {
    "import error": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "leaves python": ("raise SystemExit(3)", "SystemExit: 3"),
    "missing dependency": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "wrong hook": (
        """
        from lensdeblend.plugins import hookimpl

        @hookimpl
        def lensdeblend_telescopes():
            return []
        """,
        "ValueError: lensdeblend_telescopes is not a hook; the hooks are lensdeblend_simulators",
    ),
    "wrong hook without marker": (
        """
        def lensdeblend_telescopes():
            return []
        """,
        "ValueError: lensdeblend_telescopes is not a hook",
    ),
    "no marker": (
        """
        def lensdeblend_simulators():
            return []
        """,
        "ValueError: lensdeblend_simulators lacks the decorator lensdeblend.plugins.hookimpl",
    ),
    "wrong arguments": (
        """
        from lensdeblend.plugins import hookimpl

        @hookimpl
        def lensdeblend_simulators(telescope):
            return []
        """,
        "PluginValidationError",
    ),
    "hook that raises": (
        """
        from lensdeblend.plugins import Method, hookimpl

        @hookimpl
        def lensdeblend_simulators():
            yield Method(name="early", target="toy_methods:ToySimulator")
            raise KeyError("too late")
        """,
        "KeyError: 'too late'",
    ),
    "no records": (
        """
        from lensdeblend.plugins import hookimpl

        @hookimpl
        def lensdeblend_simulators():
            yield "toy_methods:ToySimulator"
        """,
        "TypeError: lensdeblend_simulators must yield lensdeblend.plugins.Method records; got 'toy_methods:",
    ),
    "one record": (
        """
        from lensdeblend.plugins import Method, hookimpl

        @hookimpl
        def lensdeblend_simulators():
            return Method(name="lonely", target="toy_methods:ToySimulator")
        """,
        "TypeError",
    ),
    "bad record": (
        """
        from lensdeblend.plugins import Method, hookimpl

        @hookimpl
        def lensdeblend_simulators():
            yield Method(name="bad", target="toy_methods.ToySimulator")
        """,
        "ValueError: Method.target must look like 'package.module:Class'",
    ),
    "a name twice": (
        """
        from lensdeblend.plugins import Method, hookimpl

        @hookimpl
        def lensdeblend_simulators():
            yield Method(name="twin", target="toy_methods:ToySimulator")
            yield Method(name="twin", target="toy_methods:ToySimulator")
        """,
        "ValueError: broken declares the simulator 'twin' twice",
    ),
}


def names(kind="simulator"):
    return list(methods(kind)["name"])


def run(code, folder, **environment):
    path = os.pathsep.join([str(folder), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_listing_methods_imports_none_of_them():
    code = """
import sys
import lensdeblend
assert len(lensdeblend.methods())
print(sorted({"torch", "lenstronomy", "galsim", "matplotlib", "photutils", "dask"} & set(sys.modules)))
"""
    done = run(code, "")
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_table_of_methods():
    table = methods()
    assert table.colnames == ["name", "kind", "distribution", "summary", "requires", "reference", "available"]
    assert {"lenstronomy", "galsim", "torch"} <= set(names())
    assert "forward" in names("reconstructor")
    assert all(table["summary"])
    assert len(methods("simulator")) < len(table)
    with pytest.raises(ValueError, match="unknown kind of method 'telescope'; the kinds are simulator, reconstructor"):
        methods("telescope")
    with pytest.raises(TypeError, match=r"kind must be a string, one of 'simulator', .*; got \['simulator'\]"):
        methods(["simulator"])


@pytest.mark.usefixtures("toys")
def test_a_plugin_is_found():
    assert "toy" in names()
    row = next(row for row in methods("simulator") if row["name"] == "toy")
    assert (row["distribution"], row["summary"], bool(row["available"])) == ("toys", "Round Gaussians", True)
    plugin, = (plugin for plugin in manager().plugins if plugin.distribution == "toys")
    assert (plugin.status, plugin.version, plugin.methods, plugin.message) == ("loaded", "1.0", 5, "")


@pytest.mark.parametrize("source, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_hurts_nobody_else(packages, source, message):  # noqa: F811
    module = f"broken_{abs(hash(source))}"
    install(packages, "broken", entry_point=module, modules={module: source})
    install(packages, "good", entry_point=f"good_{module}", modules={f"good_{module}": GOOD})
    with pytest.warns(PluginWarning, match="the plug-in 'broken' of broken is left out") as caught:
        assert {"good", "lenstronomy", "galsim", "torch"} <= set(names())
    assert len(caught) == 1
    names()
    assert len(caught) == 1
    assert "broken" not in set(methods()["distribution"])
    status = {plugin.distribution: plugin for plugin in manager().plugins}
    assert status["broken"].status == "failed"
    assert message in status["broken"].message
    assert {status[name].status for name in ("lensdeblend", "good")} == {"loaded"}
    assert isinstance(resolve("simulator", "good").method, ToySimulator)


def test_many_broken_plugins_get_a_warning_each(packages):  # noqa: F811
    for number, (source, _) in enumerate(BROKEN.values()):
        install(packages, f"broken-{number}", entry_point=f"many_{number}", modules={f"many_{number}": source})
    with pytest.warns(PluginWarning) as caught:
        names()
    assert len(caught) == len(BROKEN)
    assert sum(plugin.status == "failed" for plugin in manager().plugins) == len(BROKEN)


def test_one_name_of_two_packages_must_be_told_apart(packages):  # noqa: F811
    for name in ("acme", "umbrella"):
        install(packages, name, entry_point=f"{name}_plugin", modules={f"{name}_plugin": GOOD})
    with pytest.raises(ValueError, match="simulator called 'good'; write 'acme::good' or 'umbrella::good'"):
        resolve("simulator", "good")
    assert resolve("simulator", "acme::good").distribution == "acme"
    assert resolve("simulator", "umbrella::good").distribution == "umbrella"
    assert method_class("simulator", "lenstronomy").__name__ == "Lenstronomy"
    messages = {plugin.distribution: plugin.message for plugin in manager().plugins}
    assert messages["acme"] == "simulator 'good' is claimed by umbrella, too"
    assert messages["lensdeblend"] == ""


def test_the_allow_list_limits_what_is_loaded(packages, monkeypatch):  # noqa: F811
    install(packages, "Good_One", entry_point="good_one", modules={"good_one": GOOD})
    install(packages, "bad", entry_point="bad_one", modules={"bad_one": "raise RuntimeError"})
    monkeypatch.setenv("LENSDEBLEND_PLUGINS", "good-one")
    assert "good" in names()
    assert {plugin.distribution: plugin.status for plugin in manager().plugins} == {
        "lensdeblend": "loaded", "Good_One": "loaded", "bad": "not allowed",
    } | {plugin.distribution: "not allowed" for plugin in manager().plugins[3:]}
    monkeypatch.setenv("LENSDEBLEND_PLUGINS", "")
    manager.cache_clear()
    assert set(methods()["distribution"]) == {"lensdeblend"}


def test_the_allow_list_may_not_name_what_is_not_there(packages, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LENSDEBLEND_PLUGINS", "lensdeblend, absent")
    with pytest.warns(PluginWarning, match="LENSDEBLEND_PLUGINS names absent, which offers no plug-in here"):
        assert "lenstronomy" in names()
    assert manager().plugins[-1].status == "not installed"


@pytest.mark.usefixtures("toys")
def test_a_name_makes_the_default_and_an_instance_keeps_its_options():
    assert resolve("reconstructor", "toy").method == ToyReconstructor()
    mine = ToyReconstructor(theta_E=2.0)
    found = resolve("reconstructor", mine)
    assert found.method is mine
    assert (found.name, found.distribution) == ("toy", "toys")


def test_an_unregistered_instance_is_called_by_its_class():
    found = resolve("simulator", ToySimulator())
    assert (found.name, found.distribution) == ("toy_methods:ToySimulator", "toy_methods")


@pytest.mark.parametrize("method", [3, None, object()])
def test_what_is_no_method_is_refused(method):
    with pytest.raises(TypeError, match="must be the name or an instance of a Simulator"):
        resolve("simulator", method)


def test_a_method_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="instance of a Simulator; got ToyReconstructor"):
        resolve("simulator", ToyReconstructor())


def test_a_class_is_no_method():
    with pytest.raises(TypeError, match=r"got the class ToySimulator: write ToySimulator\(\)"):
        resolve("simulator", ToySimulator)


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="'lenstronmy'; did you mean 'lenstronomy'.* Known are .*galsim.*torch"):
        resolve("simulator", "lenstronmy")
    with pytest.raises(ValueError, match="unknown simulator 'acme::torch'; did you mean"):
        resolve("simulator", "acme::torch")
    with pytest.raises(ValueError, match=r"unknown simulator 'xyzzy'; Known are "):
        resolve("simulator", "xyzzy")


@pytest.mark.usefixtures("toys")
def test_options_are_the_fields_of_the_dataclass():
    assert create("reconstructor", "toy", theta_E=1.5).theta_E == 1.5
    with pytest.raises(TypeError, match="no option 'thetaE'; did you mean 'theta_E'.* It has theta_E, label, fast"):
        create("reconstructor", "toy", thetaE=1.5)


def declare(packages, **settings):  # noqa: F811
    source = f"""
    from lensdeblend.plugins import Method, hookimpl

    @hookimpl
    def lensdeblend_simulators():
        yield Method(**{settings!r})
    """
    module = f"declares_{abs(hash(str(settings)))}"
    install(packages, "acme", entry_point=module, modules={module: source})


def test_a_missing_requirement_comes_with_the_pip_command(packages):  # noqa: F811
    declare(packages, name="needy", target="toy_methods:ToySimulator", requires=("dask_unheard", "torch_unheard"))
    assert not next(row["available"] for row in methods("simulator") if row["name"] == "needy")
    with pytest.raises(MissingDependencyError, match='pip install "dask_unheard" "torch_unheard"'):
        resolve("simulator", "needy")


def test_a_missing_requirement_names_the_extra_that_draws_it(packages):  # noqa: F811
    install(packages, "rich", entry_point="rich_plugin", modules={"rich_plugin": """
        from lensdeblend.plugins import Method, hookimpl

        @hookimpl
        def lensdeblend_simulators():
            yield Method(name="rich", target="toy_methods:ToySimulator", requires=("unheard_of",))
    """})
    about = packages / "rich-1.0.dist-info" / "METADATA"
    about.write_text(about.read_text() + "Provides-Extra: gpu\nRequires-Dist: unheard-of>=2; extra == 'gpu'\n")
    with pytest.raises(ImportError, match=r'of rich needs unheard_of, .*: pip install "rich\[gpu\]"'):
        resolve("simulator", "rich")


def test_a_module_that_turns_out_missing_is_told_as_well(packages):  # noqa: F811
    (packages / "late_import.py").write_text("import unheard_of.deep\n")
    declare(packages, name="late", target="late_import:Late")
    with pytest.raises(MissingDependencyError, match='needs unheard_of, .*: pip install "unheard_of"'):
        resolve("simulator", "late")


@pytest.mark.parametrize("target", ["no_such_module:Class", "toy_methods:NoSuchClass"])
def test_a_target_that_leads_nowhere(packages, target):  # noqa: F811
    declare(packages, name="lost", target=target)
    with pytest.raises(ImportError, match=f"simulator 'lost' of acme cannot be loaded from {target}"):
        resolve("simulator", "lost")


@pytest.mark.parametrize("target", ["toy_methods:ToyReconstructor", "toy_methods:gaussian"])
def test_a_target_of_another_kind(packages, target):  # noqa: F811
    declare(packages, name="odd", target=target)
    with pytest.raises(TypeError, match="is not a subclass of lensdeblend.interfaces.Simulator"):
        resolve("simulator", "odd")


def test_a_target_without_options(packages):  # noqa: F811
    (packages / "plain_class.py").write_text(
        "from lensdeblend.interfaces import Simulator\n\nclass Plain(Simulator):\n    def simulate(self, *args): ...\n"
    )
    declare(packages, name="plain", target="plain_class:Plain")
    with pytest.raises(TypeError, match="must be a frozen dataclass"):
        resolve("simulator", "plain")


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"name": ""}, ValueError), ({"name": "a::b"}, ValueError), ({"name": " a"}, ValueError),
        ({"name": None}, TypeError), ({"target": "module.Class"}, ValueError),
        ({"requires": "torch"}, TypeError), ({"requires": (1,)}, TypeError),
        ({"summary": 3}, TypeError),
    ],
)
def test_a_record_checks_itself(settings, error):
    with pytest.raises(error, match="Method"):
        Method(**({"name": "a", "target": "module:Class"} | settings))


def test_plugins_do_not_depend_on_each_other_in_a_new_process(tmp_path):
    for number, (source, _) in enumerate(BROKEN.values()):
        install(tmp_path, f"broken-{number}", entry_point=f"many_{number}", modules={f"many_{number}": source})
    install(tmp_path, "good", entry_point="good_plugin", modules={"good_plugin": GOOD})
    install(tmp_path, "rival", entry_point="rival_plugin", modules={"rival_plugin": GOOD})
    code = """
import json
from lensdeblend.plugins import manager, method_class, resolve
found = [resolve("simulator", "good::good").name, method_class("simulator", "lenstronomy").__name__]
print(json.dumps([len(manager().plugins), *found]))
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    count, name, other = json.loads(done.stdout)
    assert (count >= len(BROKEN) + 3, name, other) == (True, "good", "Lenstronomy")
    assert done.stderr.count("PluginWarning") == len(BROKEN)


def test_interfaces_cannot_be_used_as_methods():
    with pytest.raises(TypeError, match="abstract"):
        Simulator()


@pytest.fixture(scope="module")
def caustics_plugin(tmp_path_factory):
    """A copy of the example package, and the folder it is installed into."""
    if find_spec("caustics") is None:
        pytest.skip("needs caustics, which comes with the extra lensdeblend[test]")
    folder = tmp_path_factory.mktemp("caustics")
    source, site = folder / "source", folder / "site"
    shutil.copytree(Path(__file__).parents[1] / "examples" / "lensdeblend-caustics", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(site), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return source, site


def test_a_second_distribution_is_found(caustics_plugin):
    done = run("from lensdeblend.cli import main; main(['methods', '--json'])", caustics_plugin[1])
    assert done.returncode == 0, done.stderr
    row, = (row for row in json.loads(done.stdout) if row["name"] == "caustics")
    assert (row["kind"], row["distribution"], row["available"]) == ("simulator", "lensdeblend-caustics", True)


def test_a_second_distribution_passes_its_own_tests(caustics_plugin):
    source, site = caustics_plugin
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(source)]
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)}
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
