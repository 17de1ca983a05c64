"""Evaluation prompts have exactly the tokens of training prompts, and follow the papers' code where configured."""

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
    """A test row with the columns of the training set, which differ for math tasks."""
    if "problem" in row:
        return {"query": row["problem"], "response": "The answer is: 1"}
    return row


def test_text_tasks_are_found():
    assert {"gsm8k", "math", "metamath", "commonsense", "commonsense/boolq"} <= set(TEXT_TASKS)


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_training_and_evaluation_prompts_have_the_same_tokens(name, tokenizer):
    task = task_of(f"task={name}", "data.source=embedded")
    for evaluation in task.evaluations():
        for row in list(sources.load(evaluation.dataset, "test", EMBEDDED))[:20]:
            evaluation_prompt = prompt_ids([evaluation.prompt(row)], tokenizer, "tokenizer")[0]
            assert list(training_prompt(task, as_training_row(row), tokenizer)) == evaluation_prompt


@pytest.mark.parametrize("train_set", ["gsm8k", "metamathqa", "hendrycks_math"])
def test_every_math_training_set_has_the_prompt_and_ends_with_the_answer(train_set):
    task = task_of("task=metamath", f"task.train_set={train_set}")
    for row in list(sources.load(train_set, "train", EMBEDDED))[:50]:
        example = task.training_example(row)
        assert example.prompt.endswith("\n\n### Response:")
        assert "\nThe answer is: " in example.response and "<<" not in example.response


@pytest.mark.parametrize(
    ("choice", "in_training", "in_test"), [("never", False, False), ("test", False, True), ("always", True, True)]
)
def test_think_step_by_step_is_added_where_configured(choice, in_training, in_test):
    """The choice `test` reproduces the papers' mismatch between training and evaluation prompts."""
    task = task_of("task=gsm8k", f"task.think_step_by_step={choice}")
    row = {"question": "How many?", "answer": "#### 1"}
    assert task.training_example(row).prompt.endswith(" Let's think step by step.") is in_training
    assert task.evaluations()[0].prompt(row).endswith(" Let's think step by step.") is in_test


def test_input_field_holds_all_lines_of_a_question_but_the_first():
    """As in SDS-LoRA's code, only training prompts of questions with several lines have an input field."""
    plain, split = (task_of("task=gsm8k", f"task.input_field={value}") for value in ("false", "true"))
    question = "How many?\nTwo socks.\n\nThree shoes."
    row = {"question": question, "answer": "#### 5"}
    described = "Below is an instruction that describes a task"
    request = "Write a response that appropriately completes the request.\n\n### Instruction:\nHow many?"
    assert split.training_example(row).prompt == (
        f"{described}, paired with an input that provides further context. {request}\n\n"
        "### Input:\nTwo socks.\n\nThree shoes.\n\n### Response:"
    )
    assert plain.training_example(row).prompt == f"{described}. {request}\nTwo socks.\n\nThree shoes.\n\n### Response:"
    for task in (plain, split):
        assert task.evaluations()[0].prompt(row) == plain.training_example(row).prompt
        assert (
            task.training_example(row | {"question": "How many?"}).prompt == f"{described}. {request}\n\n### Response:"
        )
    ends_in_a_line_break = split.training_example(row | {"question": "How many?\n"}).prompt
    assert ends_in_a_line_break == f"{described}. {request}\n\n### Response:"


@pytest.mark.parametrize(("template", "blank_line"), [("llm_adapters", " " * 16), ("lora_xs", "")])
def test_commonsense_templates_have_the_white_space_of_the_authors_code(template, blank_line):
    """Training prompts have two spaces after the first sentences; test prompts have one, and an empty blank line."""
    described = "Below is an instruction that describes a task."
    request = "Write a response that appropriately completes the request."
    task = task_of("task=commonsense/boolq", f"task.template={template}", "task.scorers=[paper,likelihood]")
    row = {"instruction": "Is it?\n\nAnswer format: true/false", "output": "the correct answer is true"}
    lines = ["### Instruction:", "Is it?\n\nAnswer format: true/false", "### Response:", ""]
    instruction, question, response, end = (" " * 16 + line for line in lines)
    in_training = [f"{described} {request}  ", "", instruction, question, blank_line, response, end]
    in_test = [f"{described} {request} ", "", instruction, question, "", response, end]
    assert task.training_example(row).prompt == "\n".join(in_training)
    assert [evaluation.prompt(row) for evaluation in task.evaluations()] == ["\n".join(in_test)] * 2


@pytest.mark.parametrize("name", [name for name in TEXT_TASKS if name.startswith("commonsense")])
def test_choices_of_likelihood_scoring_are_the_training_responses(name):
    task = task_of(f"task={name}", "task.scorers=[paper,likelihood]")
    for choice in task.evaluations()[1::2]:
        for row in list(sources.load(choice.dataset, "test", EMBEDDED))[:20]:
            assert choice.choices(row)[choice.gold(row)] == task.training_example(row).response
    names = [evaluation.name for evaluation in task.evaluations()]
    assert [evaluation.headline for evaluation in task.evaluations()] == ["paper", "likelihood"] * (len(names) // 2)
    assert len(set(names)) == len(names), "scores and answers are stored under the name"


def test_every_grader_accepts_the_gold_answers(tokenizer):
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
