"""The doctor's look at cluster files: the shipped one, and every usual mistake in it, one at a time and all at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.clusterfile import examine, examine_file
from orchestrator.doctor import Examination, Severity
from orchestrator.placement import Placement
from tests.test_cli import kdsweep

ROOT = Path(__file__).parents[1]
SHIPPED = (ROOT / "cluster.yaml").read_text()
FILLED = SHIPPED.replace("YOUR-PROJECT-ID", "my-project")

_BESIDE = {
    "pyproject.toml": """\
[project]
requires-python = ">=3.11"
dependencies = ["ray[tune,train]>=2.60,<2.61", "torch>=2.9,<2.16"]
[project.optional-dependencies]
tpu = ["torch==2.9.0", "torch-xla[tpu]==2.9.0", "libtpu==0.0.21"]
""",
    "constraints.txt": "ray==2.60.0\ntorch==2.13.0\n",
    "constraints-tpu.txt": "# on TPU machines\nray==2.60.0\ntorch==2.9.0\ntorch-xla==2.9.0\nlibtpu==0.0.21\n",
    "README.md": "",
    "LICENSE": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cluster file lies: with versions that agree, and everything that it mounts."""
    for name, text in _BESIDE.items():
        (tmp_path / name).write_text(text)
    for name in ("search_spaces", "trainables", "orchestrator"):
        (tmp_path / name).mkdir()
    return tmp_path


def found(text: str, folder: Path) -> list[tuple[str, str, str]]:
    """Severity, dotted name and message of every finding."""
    return [(f.severity.value, f.key, f.message) for f in examine(text, "cluster.yaml", folder).findings]


def changed(old: str, new: str, text: str = FILLED) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in cluster.yaml"
    return text.replace(old, new)


def test_the_shipped_file_has_its_placeholders_and_nothing_else() -> None:
    examination = examine_file(ROOT / "cluster.yaml")
    assert [f.key for f in examination.findings] == [
        "provider.project_id",
        "available_node_types.tpu-v4-8.node_config.serviceAccount.email",
        "available_node_types.tpu-v4-32.node_config.serviceAccount.email",
    ]
    line = SHIPPED[: SHIPPED.index("project_id: YOUR")].count("\n") + 1
    assert examination.findings[0].place.label.endswith(f"cluster.yaml:{line}")
    assert all("YOUR-PROJECT-ID" in f.message and f.severity is Severity.ERROR for f in examination.findings)


def test_the_shipped_file_is_clean_once_they_are_filled() -> None:
    assert examine(FILLED, "cluster.yaml", ROOT).findings == ()


def test_the_shipped_file_beside_other_files_is_clean_too(folder: Path) -> None:
    assert found(FILLED, folder) == []


SPOT = "        preemptible: true   # spot"
MISTAKES = {
    "no project": ("project_id: my-project", "project_id:", "provider.project_id", "your Google Cloud project, but got nothing"),
    "blank project": ("project_id: my-project", 'project_id: " "', "provider.project_id", "your Google Cloud project"),
    "other placeholder": ("project_id: my-project", "project_id: <project-id>", "provider.project_id", "in place of <project-id>"),
    "zone without v4": ("availability_zone: us-central2-b", "availability_zone: us-west1-a", "provider.availability_zone", "TPU v4 quota"),
    "other region": ("region: us-central2\n", "region: us-central1\n", "provider.region", "needs us-central2"),
    "unknown runtime": (
        "runtimeVersion: tpu-ubuntu2204-base   #",
        "runtimeVersion: tpu-ubuntu2204-bse   #",
        "available_node_types.tpu-v4-8.node_config.runtimeVersion",
        "Did you mean tpu-ubuntu2204-base?",
    ),
    "head is a TPU": ("head_node_type: head", "head_node_type: tpu-v4-8", "available_node_types.tpu-v4-8.node_config", "plain machine"),
    "no such head": ("head_node_type: head", "head_node_type: heads", "head_node_type", "Did you mean head?"),
    "fewer than at least": (
        "for a first lane\n    max_workers: 4",
        "for a first lane\n    max_workers: -1",
        "available_node_types.tpu-v4-8.max_workers",
        "min_workers=0, max_workers=-1",
    ),
    "slices that come and go": (
        "    max_workers: 0\n    resources:          # of one host",
        "    max_workers: 1\n    resources:          # of one host",
        "available_node_types.tpu-v4-32.max_workers",
        "slice of 4 hosts",
    ),
    "no chips": ("      TPU: 4            # chips", "      # chips", "available_node_types.tpu-v4-8.resources.TPU", "but got nothing"),
    "chips of the slice": (
        "      TPU: 4\n",
        "      TPU: 16\n",
        "available_node_types.tpu-v4-32.resources.TPU",
        "needs 4, the chips of one v4 host, but got 16",
    ),
    "too few CPUs": ("CPU: 16           #", "CPU: 1           #", "available_node_types.tpu-v4-8.resources.CPU", "needs 4 at least"),
    "no accelerator type": (
        '      TPU: 4            # chips of one host; Google counts cores, two a chip, hence v4-8\n      "accelerator_type:TPU-V4": 1\n',
        "      TPU: 4\n",
        'available_node_types.tpu-v4-8.resources."accelerator_type:TPU-V4"',
        "needs to be 1",
    ),
    "label of another topology": (
        "ray.io/tpu-topology: 2x2x1",
        "ray.io/tpu-topology: 2x2x2",
        "available_node_types.tpu-v4-8.labels.ray.io/tpu-topology",
        "2x2x1, but got '2x2x2'",
    ),
    "both ways of naming a slice": (
        "acceleratorType: v4-8",
        "acceleratorType: v4-8\n      acceleratorConfig: {type: V4, topology: 2x2x1}",
        "available_node_types.tpu-v4-8.node_config.acceleratorConfig",
        "needs to stand alone",
    ),
    "not a v4": (
        "acceleratorType: v4-8",
        "acceleratorType: v5litepod-8",
        "available_node_types.tpu-v4-8.node_config.acceleratorType",
        "v5lite",
    ),
    "cores for chips": (
        "acceleratorType: v4-8",
        "acceleratorType: v4-4",
        "available_node_types.tpu-v4-8.node_config.acceleratorType",
        "two a chip",
    ),
    "no such topology": (
        "topology: 2x2x4}",
        "topology: 2x3x4}",
        "available_node_types.tpu-v4-32.node_config.acceleratorConfig",
        "topology='2x3x4'",
    ),
    "a head without a mode": (
        "export RAY_AUTH_MODE=token; ulimit -n 65536;\n    ray start --head",
        "ulimit -n 65536;\n    ray start --head",
        "head_start_ray_commands[1]",
        "needs RAY_AUTH_MODE=token, as other start commands have it, but got nothing",
    ),
    "a watcher without a mode": (
        "export RAY_AUTH_MODE=token;\n    setsid",
        "setsid",
        "worker_start_ray_commands[2]",
        "needs RAY_AUTH_MODE=token",
    ),
    "a worker of another mode": (
        "export RAY_AUTH_MODE=token; ulimit -n 65536;\n    ray start --address",
        "export RAY_AUTH_MODE=disabled; ulimit -n 65536;\n    ray start --address",
        "worker_start_ray_commands[1]",
        "but got disabled",
    ),
    "no token": ("  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "file_mounts.'~/.ray/auth_token'", "ray get-auth-token --generate"),
    "a dashboard for the world": (
        "--dashboard-host=127.0.0.1",
        "--dashboard-host=0.0.0.0",
        "head_start_ray_commands[1]",
        "but got 0.0.0.0",
    ),
    "no autoscaler": ("--autoscaling-config=~/ray_bootstrap_config.yaml", "", "head_start_ray_commands", "no worker would ever be started"),
    "a mount that is not there": (
        "search_spaces: search_spaces",
        "search_spaces: search_space",
        "file_mounts.'~/kdsweep/search_spaces'",
        "exists",
    ),
    "another Ray": (
        "'ray[default]==2.60.0'",
        "'ray[default]==2.59.0'",
        "setup_commands[2]",
        "needs ray 2.60.0, as constraints-tpu.txt:2 has it",
    ),
    "constraints of the laptop": (
        "-c constraints-tpu.txt '.[gcs]'",
        "-c constraints-gpu.txt '.[gcs]'",
        "setup_commands[2]",
        "but got constraints-gpu.txt",
    ),
    "an old Python": ("--python 3.11 ~/kdsweep-env", "--python 3.10 ~/kdsweep-env", "setup_commands[1]", "needs Python >=3.11"),
    "two Pythons": (
        "google-api-python-client==2.202.0",
        "google-api-python-client==2.202.0 --python 3.12",
        "head_setup_commands[0]",
        "needs one Python on all machines, 3.11, but got 3.12",
    ),
    "the Python of the image": ("--python 3.11 ~/kdsweep-env", "~/kdsweep-env", "setup_commands", "tpu-ubuntu2204-base has 3.10"),
    "a key that Ray does not know": ("upscaling_speed: 1.0", "upscaling_sped: 1.0", "upscaling_sped", "Did you mean upscaling_speed?"),
    "a value that Ray does not take": (
        "max_workers: 4          #",
        'max_workers: "4"          #',
        "max_workers",
        "is not of type 'integer'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_error_at_its_place(mistake: str, folder: Path) -> None:
    old, new, key, part = MISTAKES[mistake]
    ((severity, where, message),) = found(changed(old, new), folder)
    assert (severity, where) == ("error", key)
    assert message.startswith("needs ")
    assert ", but got " in message
    assert part in message


WARNINGS = {
    "an old image": (
        "runtimeVersion: tpu-ubuntu2204-base   #",
        "runtimeVersion: tpu-vm-v4-base   #",
        "available_node_types.tpu-v4-8.node_config.runtimeVersion",
    ),
    "a head on spot": (
        "machineType: n2-standard-8",
        "machineType: n2-standard-8\n      scheduling: [{preemptible: true}]",
        "available_node_types.head.node_config",
    ),
    "no watcher": ("python -m orchestrator.preemption", "sleep", "worker_start_ray_commands"),
    "the whole folder": ("~/kdsweep/search_spaces: search_spaces", "~/kdsweep: .", "file_mounts.~/kdsweep"),
}


@pytest.mark.parametrize("mistake", WARNINGS)
def test_what_costs_time_or_money_is_a_warning(mistake: str, folder: Path) -> None:
    old, new, key = WARNINGS[mistake]
    ((severity, where, _),) = found(changed(old, new), folder)
    assert (severity, where.replace("'", "")) == ("warning", key)


def test_on_demand_machines_need_no_watcher(folder: Path) -> None:
    text = FILLED.replace("preemptible: true", "preemptible: false")
    assert found(changed("python -m orchestrator.preemption", "sleep", text), folder) == []


def test_start_commands_that_say_nothing_of_authentication_are_not_taken_for_agreed(folder: Path) -> None:
    text = FILLED.replace("export RAY_AUTH_MODE=token;", "true;")
    ((severity, where, message),) = found(text, folder)
    assert (severity, where) == ("error", "head_start_ray_commands[1]")
    assert "the others never do" in message


def test_authentication_that_is_off_everywhere_is_a_warning(folder: Path) -> None:
    ((severity, _, message),) = found(FILLED.replace("RAY_AUTH_MODE=token;", "RAY_AUTH_MODE=disabled;"), folder)
    assert severity == "warning"
    assert "run code" in message


def test_types_together_must_fit(folder: Path) -> None:
    text = changed("    max_workers: 0\n    resources:          # of one host", "    max_workers: 2\n    resources:          # of one host")
    text = changed("    min_workers: 0\n    max_workers: 2", "    min_workers: 2\n    max_workers: 2", text)
    text = changed("min_workers: 0      # started", "min_workers: 3      # started", text)
    ((severity, where, message),) = found(text, folder)
    assert (severity, where) == ("error", "max_workers")
    assert "max_workers=4, min_workers=5" in message


@pytest.mark.parametrize(
    ("name", "old", "new", "key", "part"),
    [
        ("constraints-tpu.txt", "ray==2.60.0", "ray==2.59.0", "ray", "needs 2.60.0, as constraints.txt:1 has it, but got 2.59.0"),
        ("constraints-tpu.txt", "torch==2.9.0", "torch==2.13.0", "torch", "needs the torch that torch-xla 2.9.0 was built for, 2.9, but"),
        ("constraints-tpu.txt", "torch-xla==2.9.0", "torch-xla==2.9.1", "torch-xla", "needs ==2.9.0, as pyproject.toml has it"),
        ("constraints-tpu.txt", "libtpu==0.0.21", "libtpu==0.0.50", "libtpu", "needs ==0.0.21, as pyproject.toml has it"),
        ("pyproject.toml", ">=2.60,<2.61", ">=2.61,<2.62", "ray", "as pyproject.toml has it, but got 2.60.0"),
        ("pyproject.toml", ">=3.11", ">=3.12", "setup_commands[1]", "needs Python >=3.12, as pyproject.toml has it, but got 3.11"),
    ],
)
def test_versions_must_agree(name: str, old: str, new: str, key: str, part: str, folder: Path) -> None:
    (folder / name).write_text(changed(old, new, _BESIDE[name]))
    messages = [message for _, where, message in found(FILLED, folder) if where == key]
    assert any(part in message for message in messages)


def test_pins_are_read_as_pip_reads_them(folder: Path) -> None:
    text = FILLED.replace("'ray[default]==2.60.0'", "'Ray[default]==2.60.0' Torch_XLA==2.8.0 https://host/x==1.html")
    (folder / "constraints-tpu.txt").write_text(_BESIDE["constraints-tpu.txt"] + "x==2\n")
    ((_, where, message),) = found(text, folder)
    assert where == "setup_commands[2]"
    assert "needs torch-xla 2.9.0, as constraints-tpu.txt:4 has it, but got 2.8.0" in message


def test_everything_is_said_at_once_in_the_order_of_the_file(folder: Path) -> None:
    # Mistakes that stand beside each other without one hiding the other.
    chosen = ["zone without v4", "chips of the slice", "no token", "a worker of another mode", "another Ray", "a dashboard for the world"]
    text = SHIPPED
    for name in chosen:
        text = changed(*MISTAKES[name][:2], text)
    examination = examine(text, "cluster.yaml", folder)
    keys = {finding.key for finding in examination.findings}
    assert {MISTAKES[name][2] for name in chosen} <= keys
    assert "provider.project_id" in keys
    lines = [finding.place.line for finding in examination.findings]
    assert lines == sorted(lines)


def test_quota_and_money_are_those_of_all_that_can_run(folder: Path) -> None:
    spot, money = examine(FILLED, "cluster.yaml", folder).needs
    # Four hosts of four chips, two cores a chip, at $3.22 a chip.
    assert "16 preemptible TPU v4 chips (32 cores)" in spot
    assert "$51.52" in money
    text = changed("    max_workers: 0\n    resources:          # of one host", "    max_workers: 2\n    resources:          # of one host")
    text = changed("    min_workers: 0\n    max_workers: 2", "    min_workers: 2\n    max_workers: 2", text)
    text = changed(SPOT, SPOT.replace("true", "false"), text)
    spot, on_demand, money = examine(text, "cluster.yaml", folder).needs
    # Two slices of sixteen chips on spot; the four hosts, on demand now.
    assert "32 preemptible" in spot
    assert "16 on-demand" in on_demand
    assert "$154.56" in money


def test_a_cluster_elsewhere_is_checked_as_far_as_it_goes(folder: Path) -> None:
    text = """\
cluster_name: here
provider: {type: local, head_ip: 127.0.0.1, worker_ips: [127.0.0.2]}
auth: {ssh_user: me}
head_start_ray_commands: ["export RAY_AUTH_MODE=token; ray start --head --autoscaling-config=~/ray_bootstrap_config.yaml"]
worker_start_ray_commands: ["ray start --address=$RAY_HEAD_IP:6379"]
file_mounts: {~/.ray/auth_token: ~/.ray/auth_token}
"""
    assert [(severity, where) for severity, where, _ in found(text, folder)] == [
        ("warning", "provider.type"),
        ("error", "worker_start_ray_commands[0]"),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1", "valid YAML"),
        ("- a\n- b\n", "a map with the keys of a Ray cluster"),
        ("", "a map with the keys of a Ray cluster"),
        ("a: 1\na: 2\n", "distinct keys"),
        ("cluster_name: !!python/object:os.system x\n", "without tags"),
    ],
)
def test_what_is_no_cluster_file_is_said_to_be_none(text: str, part: str, folder: Path) -> None:
    assert any(part in message for _, _, message in found(text, folder))


@pytest.mark.parametrize(
    "text", ["provider: 3\n", "available_node_types: [1]\nprovider: {type: gcp}\n", "2: 3\nprovider: {type: gcp}\n", "a: 2021-99-99\n"]
)
def test_nonsense_is_found_wanting_without_a_crash(text: str, folder: Path) -> None:
    assert any(severity == "error" for severity, _, _ in found(text, folder))


def test_ray_takes_the_shipped_file() -> None:
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load(FILLED))
    validate_config(prepared)
    # Every line of the defaults that would install another Ray, or open the dashboard, is replaced.
    commands = json.dumps([value for key, value in prepared.items() if key.endswith("commands")])
    assert "0.0.0.0" not in commands
    assert "ray-wheels" not in commands
    assert "1.7.8" not in commands


@pytest.mark.parametrize(
    "key", ["setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"]
)
def test_shells_take_the_commands_of_the_shipped_file(key: str) -> None:
    import yaml

    for command in yaml.safe_load(FILLED)[key]:
        done = subprocess.run(
            ["bash", "-n", "-c", f"source ~/.bashrc; export A=1 && ({command})"], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)


def test_the_command_prints_lines_or_json_and_its_code(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "cluster.yaml"
    path.write_text(SHIPPED)
    code, out, err = kdsweep(capsys, monkeypatch, "doctor", "--cluster", str(path))
    assert (code, err) == (2, "")
    first, *_, verdict, quota, money = out.splitlines()
    assert first.startswith(f"{path}:")
    assert ": error: provider.project_id: needs " in first
    assert verdict == f"{path}: 3 errors, no warnings."
    assert "Quota" in quota
    assert "Money" in money
    path.write_text(changed("python -m orchestrator.preemption", "sleep"))
    code, out, _ = kdsweep(capsys, monkeypatch, "doctor", "--cluster", str(path), "--json")
    told = json.loads(out)
    assert (code, told["errors"], told["warnings"]) == (0, 0, 1)
    assert told["findings"][0]["where"] == "worker_start_ray_commands"


def test_the_command_says_that_there_is_no_such_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = kdsweep(capsys, monkeypatch, "doctor", "--cluster", "no-such-file.yaml")
    assert code == 2
    assert "no-such-file.yaml: error: needs to be a text file that can be read, but got this: No such file or directory." in out


def test_nothing_of_ray_is_printed(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(FILLED)
    code = "from orchestrator.clusterfile import examine_file; import sys; examine_file(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(folder / "cluster.yaml")], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_files_that_are_mounted_install(tmp_path: Path) -> None:
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    mounts = {remote.removeprefix("~/kdsweep/"): local for remote, local in yaml.safe_load(SHIPPED)["file_mounts"].items()}
    # What the build reads: its own file, what it names, and every package.
    assert {"pyproject.toml", project["readme"], *project["license-files"], "search_spaces", "trainables", "orchestrator"} <= set(mounts)
    for local in mounts.values():
        assert local.startswith("~") or (ROOT / local).exists()


def test_the_kuberay_file_has_the_hosts_of_its_topology_and_the_same_versions() -> None:
    import yaml

    spec = yaml.safe_load((ROOT / "docs/kuberay.yaml").read_text())["spec"]
    (group,) = spec["workerGroupSpecs"]
    pod = group["template"]["spec"]
    slices = Placement("slice", pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"])
    (container,) = pod["containers"]
    assert group["numOfHosts"] == slices.hosts_in_slice
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert int(container["resources"]["limits"]["google.com/tpu"]) * group["numOfHosts"] == slices.chips_in_slice
    assert f"ray=={spec['rayVersion']}" in (ROOT / "constraints-tpu.txt").read_text().splitlines()
    # What Kubernetes leaves to a pod must be enough for its hook.
    assert float(container["lifecycle"]["preStop"]["exec"]["command"][-1]) < pod["terminationGracePeriodSeconds"]


def test_an_examination_counts() -> None:
    assert Examination("x", ()).lines() == ["x: no errors, no warnings."]
