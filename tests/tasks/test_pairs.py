"""task=pairs: a user's own pairs from two columns, templates or chats, with a stable test split and several scorers."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sdsbench.__main__ import main
from sdsbench.core import samples
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.core.record import Record
from sdsbench.data.columns import shown
from sdsbench.models.load import load as load_model
from sdsbench.models.location import folder_of
from sdsbench.results.tables.build import build
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import load
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import resolve_source
from sdsbench.runs.execute import execute
from sdsbench.runs.run_data import RunData, load_run
from sdsbench.tasks import base
from sdsbench.tasks.base import Conversation
from sdsbench.tasks.graders.pairs_answer import GRADERS
from sdsbench.training import tokens
from sdsbench.training.tokens import encode, prompt_text
from tests.tools import QUIET

PAIRS = [{"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}."} for i in range(60)]
COLUMNS = ["task.prompt=question", "task.response=answer"]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(train: Path, *words: str) -> RunConfig:
    return resolve_source(compose_run(["model=micro", "method=lora", "task=pairs", f"data.train={train}", *words]))[0]


def rows_of(train: Path, *words: str) -> RunData:
    return load_run(config_of(train, *words))


def questions_of(rows: Any) -> set[str]:
    return {row["question"] for row in rows}


# ---- the test split


def test_drawn_test_split_keeps_its_rows_when_rows_are_added(tmp_path: Path) -> None:
    few = rows_of(write_jsonl(tmp_path / "few.jsonl", PAIRS[:40]), *COLUMNS, "data.test_share=0.3")
    many = rows_of(write_jsonl(tmp_path / "many.jsonl", PAIRS[::-1]), *COLUMNS, "data.test_share=0.3", "seed=3")
    tested = questions_of(few.evaluations[0][1])
    assert 4 <= len(tested) <= 20 and not tested & questions_of(few.training)
    assert tested | questions_of(few.training) == {row["question"] for row in PAIRS[:40]}
    assert tested <= questions_of(many.evaluations[0][1]) and questions_of(few.training) <= questions_of(many.training)


def test_rows_with_the_same_question_are_in_one_split(tmp_path: Path) -> None:
    rows = [{"question": f"case {i}{mark}", "answer": mark or "-"} for i in range(40) for mark in ("?", " !", "")]
    data = rows_of(write_jsonl(tmp_path / "train.jsonl", rows), *COLUMNS, "data.test_share=0.5")
    sides = [{row["question"].rstrip("?! ") for row in some} for some in (data.training, data.evaluations[0][1])]
    assert all(sides) and not sides[0] & sides[1]


def test_own_test_and_validation_files_are_used_whole(tmp_path: Path) -> None:
    train, test = write_jsonl(tmp_path / "train.jsonl", PAIRS[:20]), write_jsonl(tmp_path / "test.jsonl", PAIRS[20:30])
    held = write_jsonl(tmp_path / "held.jsonl", PAIRS[30:35])
    data = rows_of(train, *COLUMNS, f"data.test={test}")
    assert len(data.training) == 20 and len(data.evaluations[0][1]) == 10
    tuning = rows_of(train, *COLUMNS, f"data.test={test}", f"data.validation={held}", "eval.split=validation")
    assert questions_of(tuning.evaluations[0][1]) == questions_of(PAIRS[30:35])
    tuning = rows_of(train, *COLUMNS, f"data.test={test}", "eval.split=validation", "data.validation_rows=5")
    assert len(tuning.training) == 15 and not questions_of(tuning.training) & questions_of(tuning.evaluations[0][1])
    tuning = rows_of(train, *COLUMNS, f"data.test={test}", "eval.split=validation", "data.validation_rows=3")
    assert len(tuning.evaluations[0][1]) == 3, "fewer than a quarter of the file"


# ---- training examples


def test_one_file_is_enough_for_tuning(tmp_path: Path) -> None:
    """The test rows are set aside, and at most a quarter of the other rows is held back, however few they are."""
    train = write_jsonl(tmp_path / "train.jsonl", PAIRS)
    reported, tuning = rows_of(train, *COLUMNS), rows_of(train, *COLUMNS, "eval.split=validation")
    held = questions_of(tuning.evaluations[0][1])
    assert len(held) == len(reported.training) // 4
    assert held | questions_of(tuning.training) == questions_of(reported.training) and held.isdisjoint(
        questions_of(tuning.training)
    )


def test_examples_are_made_from_columns_templates_and_chats(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": "So.", "topic": 7}

    def example(*words: str) -> Any:
        return base.build(config_of(tmp_path / "x.jsonl", *COLUMNS[1:], *words).task).training_example(row)

    assert example("task.prompt=question").prompt == "Why?"
    assert example('task.prompt="{topic}: {question} {{}}"').prompt == "7: Why? {}"
    assert example("task.prompt=question", "task.chat=true").prompt == Conversation((("user", "Why?"),))
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    config = config_of(tmp_path / "x.jsonl", "task.prompt=messages", "task.response=null", "task.chat=true")
    example_of_chat = base.build(config.task).training_example({"messages": messages})
    assert (example_of_chat.prompt, example_of_chat.response) == (Conversation((("system", "s"), ("user", "u"))), "a")


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of micro with a chat template and a beginning-of-text token."""
    folder = tmp_path_factory.mktemp("chatty") / "model"
    shutil.copytree(folder_of(compose_run(["model=micro"]).model)[0], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"chat_template": TEMPLATE, "bos_token": settings["eos_token"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_tokenizers_chat_template_is_used_with_one_begin_token(chat_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    prompt = Conversation((("user", "Why?"),))
    text = prompt_text(prompt, tokenizer)
    assert text == f"{tokenizer.bos_token}<user>Why?\n<assistant>"
    config = compose_run(["model=micro", "task=pairs", "task.begin_token=always"]).task
    encoded = next(encode([base.TextExample(prompt, "So.")], tokenizer, 100, config))  # type: ignore[arg-type]
    assert encoded.ids[: encoded.first_target].count(tokenizer.bos_token_id) == 1


def test_run_on_chat_messages_asks_through_the_template(chat_model: Path, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}
        for row in PAIRS
    ]
    train = write_jsonl(tmp_path / "chats.jsonl", rows)
    words = ["task=pairs", "task.prompt=messages", "task.response=null", "task.chat=true", "task.scorers=[exact]",
             "model=local", f"model.location={chat_model}", "method=lora", f"data.train={train}", *SHORT]  # fmt: skip
    assert main([*words, f"output_root={tmp_path / 'runs'}"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    prompts = [row["prompt"] for row in samples.read(samples.path_of(run, "pairs", "trained"))]
    assert prompts and all("<user>What is " in text and text.endswith("<assistant>") for text in prompts)


def test_tokenizer_without_a_chat_template_is_refused() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(compose_run(["model=micro"]).model)[0])
    with pytest.raises(Unavailable, match=r"task\.chat=True.*has none"):
        prompt_text(Conversation((("user", "Why?"),)), tokenizer)


# ---- refusals

BAD_ROWS: list[tuple[list[str], dict[str, Any], str]] = [
    (COLUMNS, {"question": None, "answer": "a"}, "column question: None"),
    (COLUMNS, {"question": 7, "answer": "a"}, "column question: 7; accepted: text that is not empty"),
    (COLUMNS, {"question": "q", "answer": None}, "column answer: None; accepted: text that is not empty"),
    (COLUMNS, {"question": "q", "answer": ""}, "column answer: ''; accepted: text that is not empty"),
    ([*COLUMNS, "task.scorers=[numeric]"], {"question": "q", "answer": "none"}, "accepted: text with a number"),
    (COLUMNS, {"prompt": "q", "response": "a"}, "missing column(s) question; found prompt, response"),
    (["task.prompt=question"], {"question": "q", "reply": "a"}, "missing column(s) response; found question, reply"),
    (
        ["task.prompt=messages", "task.response=null", "task.chat=true"],
        {"messages": [{"role": "user", "content": "u"}]},
        "the last one assistant's",
    ),
]


@pytest.mark.parametrize(("words", "row", "message"), BAD_ROWS, ids=lambda value: shown(value)[:30])
def test_invalid_rows_are_refused(words: list[str], row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(Unavailable) as caught:
        rows_of(path, *words, f"data.test={path}")
    assert message in str(caught.value) and "data set pairs" in str(caught.value)
    assert ("task.prompt=COLUMN task.response=COLUMN" in str(caught.value)) == ("missing column" in message)


WRONG_KEYS = [
    (["data.test=x.jsonl"], "data.train"),
    (["data.train=x.jsonl", "data.source=embedded"], "data.source"),
    (["data.train=x.jsonl", "task=gsm8k"], "data.train"),
    (["data.train=x.jsonl", "task.response=null"], "task.response"),
    (["data.train=x.jsonl", 'task.prompt="{question"'], "task.prompt"),
    (["data.train=x.jsonl", "task.scorers=[bleu]"], "task.scorers"),
]


@pytest.mark.parametrize(("words", "key"), WRONG_KEYS, ids=str)
def test_wrong_keys_are_refused(words: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        compose_run(["model=micro", "method=lora", "task=pairs", *words])


@pytest.mark.parametrize(("words", "expected"), [(["data.train=/nowhere/x.jsonl"], 3), ([], 2)], ids=str)
def test_missing_file_gives_one_line(
    words: list[str], expected: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["model=micro", "method=lora", "task=pairs", *words, f"output_root={tmp_path}"])
    printed, error = capsys.readouterr()
    assert code == expected and error.count("sdsbench: ") == 1
    assert "data.train" in error and "hellaswag" not in error, "other data sets are not suggested"
    assert "embedded" not in printed + error, "no generated rows are announced, since they never replace own files"


# ---- scorers

GRADED = [
    ("exact", "It is 4.", "  It  is 4.\n", 1), ("exact", "It is 4.", "it is 4.", 0),
    ("contains", "Lima", "The capital is LIMA!", 1), ("contains", "Lima", "Cuzco", 0),
    ("numeric", "so 1,200", "I think 3 or 1200.0", 1), ("numeric", "so -2", "2", 0), ("numeric", "1", "none", 0),
    ("numeric", "7", "1" * 41 + "7", 0), ("numeric", "7", "0." + "1" * 40 + "7", 0), ("numeric", "9" * 50, "9" * 50, 1),
    ("rouge_l", "the cat sat", "the cat sat", 1), ("rouge_l", "the cat sat", "the dog sat", 2 / 3),
    ("chrf", "the cat", "the cat", 1), ("chrf", "abc", "xyz", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "gold", "text", "score"), GRADED)
def test_grader_scores_a_text(name: str, gold: str, text: str, score: float) -> None:
    assert GRADERS[name](gold, text) == pytest.approx(score)


@pytest.mark.parametrize("name", GRADERS)
@pytest.mark.parametrize("text", ["", "\x00", "9" * 9000, "1e999999", "é" * 50, "-", ".", "{" * 9])
def test_graders_raise_for_no_text(name: str, text: str) -> None:
    assert 0 <= GRADERS[name]("It is 4.", text) <= 1


def test_rouge_l_equals_that_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    library, chance = RougeScorer(["rougeL"]), random.Random(0)
    for _ in range(300):
        gold, text = (" ".join(chance.choices("abcde", k=chance.randrange(40))) for _ in range(2))
        assert GRADERS["rouge_l"](gold, text) == library.score(gold, text)["rougeL"].fmeasure


def test_very_long_texts_are_graded() -> None:
    """A stored answer may have any length; a table of all pairs of words would take an hour."""
    gold, text = "a b " * 60_000, "b a " * 60_000
    assert GRADERS["rouge_l"](gold, text) == pytest.approx(1 - 1 / 120_000)


# ---- runs

SHORT = [
    "train.max_steps=2", "train.batch_size=2", "eval.limit=null", "threads=1", "task.max_new_tokens=6", "dtype=float32",
]  # fmt: skip


def run(root: Path, train: Path, *words: str) -> Record:
    return execute(config_of(train, *COLUMNS, *SHORT, *words, f"output_root={root}"), QUIET)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    root = tmp_path_factory.mktemp("pairs")
    words = ["data.test_share=0.2", "task.scorers=[rouge_l,exact]", "eval.untrained=true"]
    return run(root, write_jsonl(root / "own.jsonl", PAIRS), *words), root


def test_scores_of_a_run_are_means_of_its_stored_answers(record: tuple[Record, Path]) -> None:
    found, root = record
    by_scorer = {score.scorer: score for score in found.scores if score.stage == "trained"}
    assert list(by_scorer) == ["rouge_l", "exact", "loss", "perplexity"]
    assert [score.scorer for score in by_scorer.values() if score.headline] == ["rouge_l"]
    assert by_scorer["perplexity"].value == pytest.approx(math.exp(by_scorer["loss"].value))
    assert by_scorer["loss"].better == "lower" and by_scorer["loss"].unit == "number"
    rows = samples.read(samples.path_of(root / found.run_id, "pairs", "trained"))
    for name in ("rouge_l", "exact", "loss"):
        values = [row["scores"][name] for row in rows]
        assert sum(values) / len(values) == pytest.approx(by_scorer[name].value, abs=1e-9)
    text = (root / found.run_id / "record.json").read_text()
    assert str(root) not in text and "own.jsonl" not in text


def test_files_of_a_run_agree_and_its_answers_can_be_rescored(record: tuple[Record, Path]) -> None:
    from sdsbench.results.bundles.consistency import contradictions
    from sdsbench.results.tables.rescore import rescored

    found, root = record
    assert contradictions(root / found.run_id, packed=False) == []
    runs, _ = load(root)
    (again,) = rescored(runs, "pairs=exact")
    assert [score.scorer for score in again.record.scores if score.headline and score.stage == "trained"] == ["exact"]


def test_choices_are_ranked_by_likelihood(tmp_path: Path) -> None:
    rows = [{**row, "choices": [row["answer"], "It is a river.", "Nobody knows."]} for row in PAIRS]
    found = run(tmp_path, write_jsonl(tmp_path / "own.jsonl", rows), "task.choices=choices")
    scores = {score.scorer: score for score in found.scores}
    assert list(scores) == ["likelihood", "loss", "perplexity"] and scores["likelihood"].headline
    assert scores["likelihood"].floor == pytest.approx(1 / 3) and scores["loss"].floor is None
    rows[3]["choices"] = ["another", "and another"]
    bad = write_jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(Unavailable, match=r"row 4, column choices.*the response among them"):
        rows_of(bad, *COLUMNS, "task.choices=choices", f"data.test={bad}")


def test_untrained_loss_equals_the_loss_of_transformers(record: tuple[Record, Path]) -> None:
    found, root = record
    config = config_of(root / "own.jsonl", *COLUMNS, *SHORT, "data.test_share=0.2")
    loaded = load_model(config.model, torch.float32, None)
    total, tokens = 0.0, 0
    for row in load_run(config).evaluations[0][1]:
        prompt = loaded.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
        response = loaded.tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
        response += [loaded.tokenizer.eos_token_id]
        ids = torch.tensor([prompt + response])
        labels = torch.tensor([[-100] * len(prompt) + response])
        with torch.no_grad():
            total += float(loaded.model(input_ids=ids, labels=labels).loss) * len(response)
        tokens += len(response)
    untrained = next(s for s in found.scores if s.stage == "untrained" and s.scorer == "loss")
    assert untrained.value == pytest.approx(total / tokens, rel=1e-5)


def test_method_with_the_lower_loss_is_ranked_best(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "own.jsonl", PAIRS)
    for method, rate in (("lora", "1e-2"), ("full_ft", "1e-7")):
        for seed in range(3):
            run(
                tmp_path / "runs", train, f"method={method}", f"protocol.lr={rate}", f"seed={seed}", "train.max_steps=8"
            )
    runs, _ = load(tmp_path / "runs")
    built = build(grid(runs), runs)
    (column,) = built.table.columns
    assert (column.better, column.format) == ("lower", "number")
    cells = {row.name: built.cells[row.name, column.name] for row in built.table.rows}
    lora, full = (next(cell for name, cell in cells.items() if name.startswith(m)) for m in ("lora", "full_ft"))
    assert lora.ours and full.ours and lora.ours.mean < full.ours.mean < 20, "nats, not percent"
    assert lora.mark == "best" and full.p_value is not None and full.p_value < 0.05


def test_endless_chat_template_is_refused(chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    loop = "{% for x in range(99999) %}"
    tokenizer.chat_template = loop * 3 + "{% endfor %}" * 3
    with monkeypatch.context() as patch, pytest.raises(Unavailable, match=r"it computes for more than 0\.2 s"):
        patch.setattr(tokens, "TEMPLATE_SECONDS", 0.2)
        prompt_text(Conversation((("user", "Why?"),)), tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert prompt_text(Conversation((("user", "Why?"),)), tokenizer) == "Why?"
