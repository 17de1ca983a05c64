"""Importers of other tools' results, tested on files with the structure that these tools write."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.results.claims.claim_files import read as read_claims
from sdsbench.results.importers import external, peft_results, wandb

# Keys and nesting as in peft's method_comparison/MetaMathQA/results/lora--llama-3.2-3B-rank32.json.
RESULT = {
    "run_info": {
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "train_config": {"model_id": "meta-llama/Llama-3.2-3B", "seed": 0, "optimizer_kwargs": {"lr": 0.0001}},
        "peft_config": {"peft_type": "LORA", "r": 32},
    },
    "train_info": {
        "cuda_memory_max": 22273851392,
        "train_time": 1796.1,
        "num_trainable_params": 9175040,
        "status": "success",
        "metrics": [
            {"step": 250, "valid accuracy": 0.34, "train loss": 0.98},
            {"step": 5000, "test accuracy": 0.482, "train loss": 0.607},
        ],
    },
    "meta_info": {
        "dataset_info": {"metamath": {}, "gsm8k": {}},
        "package_info": {"peft-version": "0.15.2", "torch-version": "2.7.1"},
        "system_info": {"gpu": "NVIDIA L40S"},
    },
}


def test_peft_result_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lora.json"
    path.write_text(json.dumps(RESULT))
    record = peft_results.read(path)
    assert (record.method, record.rank, record.seed, record.lr) == ("LORA", 32, 0, 1e-4)
    assert record.scores == {"test accuracy": 0.482, "train loss": 0.607}
    assert record.trainable == 9175040 and record.task == "gsm8k, metamath"
    assert record.made_with == "peft 0.15.2, torch 2.7.1, NVIDIA L40S"


@pytest.mark.parametrize(
    "adapter, method, rank",
    [
        ({"peft_type": "LORA", "r": 8, "use_dora": True, "use_rslora": False}, "LORA (use_dora)", 8),
        ({"peft_type": "LORA", "r": 8, "init_lora_weights": "pissa"}, "LORA (pissa)", 8),
        ({"peft_type": "LORA", "r": 8, "init_lora_weights": True}, "LORA", 8),
        ({"peft_type": "ADALORA", "r": 8, "init_r": 12}, "ADALORA", 8),
        ({"peft_type": "IA3"}, "IA3", None),
    ],
)
def test_adapters_keep_their_names_and_ranks(tmp_path: Path, adapter: dict, method: str, rank: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**RESULT, "run_info": {**RESULT["run_info"], "peft_config": adapter}}))
    record = peft_results.read(path)
    assert (record.method, record.rank) == (method, rank)


def test_wandb_configuration_of_a_peft_trainer_names_the_adapter(tmp_path: Path) -> None:
    files = tmp_path / "run-1" / "files"
    files.mkdir(parents=True)
    (files / "wandb-summary.json").write_text('{"loss": 0.7}')
    (files / "config.yaml").write_text("peft_config:\n  value: {default: {peft_type: VERA, r: 256}}\n")
    record = wandb.read(tmp_path / "run-1")
    assert (record.method, record.rank) == ("VERA", 256)


def test_full_fine_tuning_has_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    path.write_text(json.dumps({**RESULT, "run_info": {**RESULT["run_info"], "peft_config": None}}))
    assert peft_results.read(path).method == "full fine-tuning"


@pytest.mark.parametrize("text", ["{}", "no json", '{"run_info": 3, "train_info": {}, "meta_info": {}}', "[]"])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DamagedFile, match=r"not a result|not JSON"):
        peft_results.read(path)


def wandb_file(messages: list[bytes]) -> bytes:
    """The bytes of a .wandb file that holds these messages in its block format (blocks of 32768 bytes)."""
    content = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    for message in messages:
        first = True
        while True:
            room = 32768 - len(content) % 32768
            if room < 7:
                content += bytes(room)
                continue
            part, message = message[: room - 7], message[room - 7 :]
            kind = (1 if first else 4) if not message else (2 if first else 3)
            content += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            first = False
            if not message:
                break
    return content


def test_wandb_file_of_an_offline_run_is_read(tmp_path: Path) -> None:
    """The file spans several blocks; then it is truncated, altered, replaced and removed."""
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    start = protocol.Record()
    for key, value in {"train": {"lr": 0.1}, "seed": 3, "method": "lora"}.items():
        start.run.config.update.add(key=key, value_json=json.dumps(value))
    messages = [start.SerializeToString()]
    for step in range(1500):
        record = protocol.Record()
        record.history.item.add(nested_key=["eval", "accuracy"], value_json=str(step / 1500))
        record.history.item.add(key="text", value_json=json.dumps("x" * (step % 61)))
        messages.append(record.SerializeToString())
    log = tmp_path / "offline-run-1" / "run-1.wandb"
    (log.parent / "files").mkdir(parents=True)
    content = wandb_file(messages)
    log.write_bytes(content)
    (folder,) = wandb.run_folders(tmp_path)
    record = wandb.read(folder)
    assert len(content) > 3 * 32768
    assert record.scores == {"eval.accuracy": 1499 / 1500}
    assert (record.lr, record.seed, record.method) == (0.1, 3, "lora")
    log.write_bytes(content[: len(content) // 2])
    assert 0.3 < wandb.read(folder).scores["eval.accuracy"] < 0.7
    log.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with pytest.raises(DamagedFile, match="wrong checksum"):
        wandb.read(folder)
    log.write_bytes(b"something else")
    with pytest.raises(DamagedFile, match=r"not a \.wandb file"):
        wandb.read(folder)
    log.unlink()
    with pytest.raises(Unavailable):
        wandb.read(folder)


@pytest.mark.slow  # 4 s
def test_offline_run_written_by_wandb_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    settings = package.Settings(console="off", silent=True)
    run = package.init(mode="offline", dir=str(tmp_path), project="p", config={"seed": 3}, settings=settings)
    run.log({"accuracy": 0.5})
    run.log({"accuracy": 0.75})
    run.finish()
    package.teardown()  # the file is complete only after the service has ended
    (folder,) = wandb.run_folders(tmp_path / "wandb")
    record = wandb.read(folder)
    assert record.scores["accuracy"] == 0.75 and record.seed == 3


def test_wandb_folder_with_summary_is_read(tmp_path: Path) -> None:
    files = tmp_path / "run-1" / "files"
    files.mkdir(parents=True)
    (files / "wandb-summary.json").write_text('{"eval": {"accuracy": 0.7}, "_runtime": 12, "note": "x", "bad": NaN}')
    (files / "config.yaml").write_text(
        "method:\n  value: {name: lora, rank: 8}\nseed:\n  value: 1\n_wandb:\n  value: {}\n"
    )
    record = wandb.read(tmp_path / "run-1")
    assert record.scores == {"eval.accuracy": 0.7} and record.train_seconds == 12
    assert (record.method, record.rank, record.seed) == ("lora", 8, 1)
    (files / "wandb-summary.json").write_text("{")
    with pytest.raises(DamagedFile):
        wandb.read(tmp_path / "run-1")


def test_external_command_writes_records_that_reports_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps(RESULT))
    assert main(["external", "peft", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert [record.name for record in external.read_all(tmp_path / "out")[0]] == ["lora/llama-3.2-3B-rank32"]
    assert main(["external", "wandb", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 3
    (tmp_path / "out" / "peft" / "broken.json").write_text("{}")
    records, damaged = external.read_all(tmp_path / "out")
    assert len(records) == 1, "a bad file does not hide others"
    assert list(damaged) == [str(tmp_path / "out" / "peft" / "broken.json")]
    (tmp_path / "in" / "b.json").write_text(json.dumps({**RESULT, "run_info": 5}))
    assert main(["external", "peft", str(tmp_path / "in"), "--output", str(tmp_path / "again")]) == 3
    assert len(list((tmp_path / "again").rglob("*.json"))) == 1


def test_yaml_of_nested_aliases_is_refused_without_expanding_it(tmp_path: Path) -> None:
    """A kilobyte of YAML aliases that would expand to a thousand million values."""
    bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 30))
    (tmp_path / "run-1" / "files").mkdir(parents=True)
    (tmp_path / "run-1" / "files" / "wandb-summary.json").write_text('{"accuracy": 0.5}')
    (tmp_path / "run-1" / "files" / "config.yaml").write_text(bomb)
    with pytest.raises(DamagedFile, match=r"config\.yaml: accepted: at most .* aliases written out"):
        wandb.read(tmp_path / "run-1")
    (tmp_path / "claims.yaml").write_text(f"{bomb}claims: [{{id: c, ours: *a29}}]\n")
    with pytest.raises(DamagedFile, match=r"claims\.yaml: accepted: at most .* aliases written out"):
        read_claims(tmp_path / "claims.yaml")


def test_record_name_of_any_length_gets_a_file(tmp_path: Path) -> None:
    names = ["x" * 1000, "x" * 1000 + "y", "\u6a21" * 90, "n"]
    for name in names:
        content = {**RESULT, "run_info": {**RESULT["run_info"], "experiment_name": name}}  # type: ignore[dict-item]
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert main(["external", "peft", str(tmp_path / "a.json"), "--output", str(tmp_path / "out")]) == 0
    assert {record.name for record in external.read_all(tmp_path / "out")[0]} == set(names)


def test_names_with_equal_file_names_are_kept_in_two_files(tmp_path: Path) -> None:
    def record(name: str, score: float) -> external.ExternalRecord:
        scores = {"x": score}
        return external.ExternalRecord(
            tool="peft", name=name, model="m", method="LORA", task="t", scores=scores, origin="0"
        )

    written = [external.write(tmp_path, record(*given)) for given in (("a b", 0.1), ("a-b", 0.2), ("a-b", 0.3))]
    assert written[0] != written[1] == written[2], "a second import replaces the first"
    found = {one.name: one.scores["x"] for one in external.read_all(tmp_path)[0]}
    assert found == {"a b": 0.1, "a-b": 0.3}


WRONG_TYPES = {
    "metrics": {**RESULT, "train_info": {**RESULT["train_info"], "metrics": [3]}},
    "packages": {**RESULT, "meta_info": {**RESULT["meta_info"], "package_info": 7}},
    "configuration": {**RESULT, "run_info": {**RESULT["run_info"], "train_config": [1]}},
}  # fmt: skip


@pytest.mark.parametrize("section", WRONG_TYPES)
def test_value_of_another_type_gives_one_line_and_hides_no_other_file(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value of another type may raise any exception, such as AttributeError or TypeError."""
    for name, content in (("bad", WRONG_TYPES[section]), ("good", RESULT)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert main(["external", "peft", str(tmp_path), "--output", str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'bad.json'}: not " in line
    assert len(external.read_all(tmp_path / "out")[0]) == 1


def test_invalid_wandb_message_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's checksums are right, but its content is no wandb message."""
    pytest.importorskip("wandb.proto.wandb_internal_pb2")
    (tmp_path / "run-1" / "files").mkdir(parents=True)
    (tmp_path / "run-1" / "run-1.wandb").write_bytes(wandb_file([b"\xff\xff\xff"]))
    assert main(["external", "wandb", str(tmp_path / "run-1"), "--output", str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'run-1'}: not what wandb writes (DecodeError" in line
