"""A claim as it stands in claims.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Test = Literal["higher", "not_lower", "within", "below", "spread", "file"]


class Claim(BaseModel):
    """One testable sentence of a paper; the comment at the top of claims.yaml explains the keys."""

    model_config = ConfigDict(extra="forbid")

    id: str
    paper: str
    sentence: str
    test: Test
    measure: str = ""
    evaluation: str = ""
    ours: dict[str, Any] = Field(default_factory=dict)
    theirs: dict[str, Any] = Field(default_factory=dict)
    same: list[str] = Field(default_factory=list)
    setting: dict[str, list[Any]] = Field(default_factory=dict)
    margin: float = 0.0
    tuned: bool = False
    fewer_parameters: float | None = None
    file: str = ""
    row: dict[str, str] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)
    bounds: tuple[float | None, float | None] = (None, None)

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        if self.test == "file":
            missing = [key for key in ("file", "row", "columns") if not getattr(self, key)]
        else:
            needed = ["measure", "ours", "same"] + (
                ["theirs"] if self.test in ("higher", "not_lower", "within") else []
            )
            missing = [key for key in needed if not getattr(self, key)]
        if missing:
            raise ValueError(f"a claim with test {self.test} needs {', '.join(missing)}")
        return self
