"""A model is asked in the very tokens that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from transformers import AutoTokenizer

from sdsbench.data import sources
from sdsbench.data.data_config import DataConfig
from sdsbench.models.location import folder_of
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.tasks import base
from sdsbench.training.tokens import encode, prompt_ids
from tests.tools import reads_own_files

EMBEDDED = DataConfig(source="embedded")
TEXT_TASKS = [name for name in options("task") if base.lookup(name)[0].kind == "text" and not reads_own_files(name)]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(folder_of(compose_run(["model=micro"]).model)[0])


def task_of(*overrides: str):
    return base.build(compose_run(["model=micro", *overrides]).task)


def training_prompt(task, row, tokenizer) -> Sequence[int]:
    encoded = next(encode([task.training_example(row)], tokenizer, 4096, task.config))
    return encoded.ids[: encoded.first_target]


def as_training_row(row):
    """A test row in the columns of the training set: math tasks train on other columns than they are tested on."""
    if "problem" in row:
        return {"query": row["problem"], "response": "The answer is: 1"}
    return row


def test_every_text_task_is_here():
    assert {"gsm8k", "math", "metamath", "commonsense", "commonsense/boolq"} <= set(TEXT_TASKS)


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_training_and_evaluation_prompts_have_the_same_tokens(name, tokenizer):
    task = task_of(f"task={name}", "data.source=embedded")
    for evaluation in task.evaluations():
        for row in list(sources.load(evaluation.dataset, "test", EMBEDDED))[:20]:
            asked = prompt_ids([evaluation.prompt(row)], tokenizer, "tokenizer")[0]
            assert list(training_prompt(task, as_training_row(row), tokenizer)) == asked


@pytest.mark.parametrize("train_set", ["gsm8k", "metamathqa", "hendrycks_math"])
def test_every_math_training_set_has_the_same_prompt_and_ends_in_the_answer(train_set):
    task = task_of("task=metamath", f"task.train_set={train_set}")
    for row in list(sources.load(train_set, "train", EMBEDDED))[:50]:
        example = task.training_example(row)
        assert example.prompt.endswith("\n\n### Response:")
        assert "\nThe answer is: " in example.response and "<<" not in example.response


@pytest.mark.parametrize(
    ("choice", "in_training", "in_test"), [("never", False, False), ("test", False, True), ("always", True, True)]
)
def test_think_step_by_step(choice, in_training, in_test):
    """`test` is the papers' mismatch, kept as a switch."""
    task = task_of("task=gsm8k", f"task.think_step_by_step={choice}")
    row = {"question": "How many?", "answer": "#### 1"}
    assert task.training_example(row).prompt.endswith(" Let's think step by step.") is in_training
    assert task.evaluations()[0].prompt(row).endswith(" Let's think step by step.") is in_test


def test_a_question_of_several_lines_has_an_input_field_where_asked_for():
    """As SDS-LoRA's code splits it; its test prompts, and questions of one line, have no input."""
    plain, split = (task_of("task=gsm8k", f"task.input_field={value}") for value in ("false", "true"))
    question = "How many?\nTwo socks.\n\nThree shoes."
    row = {"question": question, "answer": "#### 5"}
    described = "Below is an instruction that describes a task"
    asked = "Write a response that appropriately completes the request.\n\n### Instruction:\nHow many?"
    assert split.training_example(row).prompt == (
        f"{described}, paired with an input that provides further context. {asked}\n\n"
        "### Input:\nTwo socks.\n\nThree shoes.\n\n### Response:"
    )
    assert plain.training_example(row).prompt == f"{described}. {asked}\nTwo socks.\n\nThree shoes.\n\n### Response:"
    for task in (plain, split):
        assert task.evaluations()[0].prompt(row) == plain.training_example(row).prompt
        assert task.training_example(row | {"question": "How many?"}).prompt == f"{described}. {asked}\n\n### Response:"
    ends_in_a_line_break = split.training_example(row | {"question": "How many?\n"}).prompt
    assert ends_in_a_line_break == f"{described}. {asked}\n\n### Response:"


@pytest.mark.parametrize(("template", "blank_line"), [("llm_adapters", " " * 16), ("lora_xs", "")])
def test_commonsense_prompts_with_the_white_space_of_the_public_codes(template, blank_line):
    """Two spaces after the first sentences in training, one in test, where the blank line is bare too."""
    described = "Below is an instruction that describes a task."
    asked = "Write a response that appropriately completes the request."
    task = task_of("task=commonsense/boolq", f"task.template={template}", "task.scorers=[paper,likelihood]")
    row = {"instruction": "Is it?\n\nAnswer format: true/false", "output": "the correct answer is true"}
    lines = ["### Instruction:", "Is it?\n\nAnswer format: true/false", "### Response:", ""]
    instruction, question, response, end = (" " * 16 + line for line in lines)
    in_training = [f"{described} {asked}  ", "", instruction, question, blank_line, response, end]
    in_test = [f"{described} {asked} ", "", instruction, question, "", response, end]
    assert task.training_example(row).prompt == "\n".join(in_training)
    assert [evaluation.prompt(row) for evaluation in task.evaluations()] == ["\n".join(in_test)] * 2


@pytest.mark.parametrize("name", [name for name in TEXT_TASKS if name.startswith("commonsense")])
def test_choices_are_the_training_responses(name):
    task = task_of(f"task={name}", "task.scorers=[paper,likelihood]")
    for choice in task.evaluations()[1::2]:
        for row in list(sources.load(choice.dataset, "test", EMBEDDED))[:20]:
            assert choice.choices(row)[choice.gold(row)] == task.training_example(row).response
    names = [evaluation.name for evaluation in task.evaluations()]
    assert [evaluation.headline for evaluation in task.evaluations()] == ["paper", "likelihood"] * (len(names) // 2)
    assert len(set(names)) == len(names), "scores and answers are kept under the name"


def test_gold_answers_are_found_correct_by_every_grader(tokenizer):
    task = task_of("task=metamath")
    for evaluation in task.evaluations():
        for row in list(sources.load(evaluation.dataset, "test", EMBEDDED))[:30]:
            response = (
                task.training_example(row).response
                if "question" in row
                else f"Final Answer: The final answer is ${evaluation.target(row)}$. I hope it is correct.\n"
                f"The answer is: {evaluation.target(row)}"
            )
            for name, scorer in evaluation.scorers.items():
                assert scorer(row, response), (name, response)
