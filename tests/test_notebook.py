"""In an editor that runs the `# %%` parts as cells, and in a notebook: a real Jupyter kernel."""

import re

import pytest
from conftest import ROOT, SCRIPT
from jupyter_client.manager import start_new_kernel

CELLS = re.split(r"(?m)^(?=# %% )", SCRIPT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def notebook():
    """A kernel that has run every part but the last, in order; gives what one more cell prints."""
    manager, client = start_new_kernel(cwd=str(ROOT))

    def cell(code):
        printed = []
        answer = client.execute_interactive(
            code,
            timeout=120,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )
        assert answer["content"]["status"] == "ok", answer["content"]
        return "".join(printed)

    for code in CELLS[:-1]:
        assert cell(code) == ""
    yield cell
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_parts_are_the_sections_of_the_lecture():
    titles = [re.match(r"# %% (\d)\. ", code).group(1) for code in CELLS[1:]]
    assert titles == list("0123455677")


def test_a_cell_can_use_what_the_cells_before_it_defined(notebook):
    printed = notebook('main(["--quick", "--only", "mlp"])')
    assert "mlp: ok" in printed and "Traceback" not in printed


def test_the_last_cell_runs_everything_whatever_the_kernels_own_command_line_says(notebook):
    notebook("whole, main = main, lambda arguments=None: print('main got', arguments)")
    assert notebook(CELLS[-1]) == "main got []\n"
    notebook("main = whole")


def test_the_magic_command_run_passes_its_arguments(notebook):
    printed = notebook(f'%run "{SCRIPT}" --quick --only mlp --seed 3')
    assert "seed 3" in printed and "mlp: ok" in printed
    assert "SystemExit" not in printed
