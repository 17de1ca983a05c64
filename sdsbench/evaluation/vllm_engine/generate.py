"""Answer prompts with vLLM: `python generate.py FOLDER`, run by the Python of an environment that has vLLM.

Imports nothing of sdsbench, since vLLM and sdsbench need different versions of transformers. FOLDER/request.json holds
the model, the prompts as token ids and the settings; FOLDER/answers.json receives the generated token ids, and
FOLDER/finished the number of finished answers meanwhile.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

FREE_SHARE = 0.9  # share of a GPU's free memory that vLLM gets; the training process holds the rest
CPU_CACHE_GIB = "2"  # keys and values of a model on a CPU; more rows than fit wait


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    import vllm  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    adapter = request["adapter"]
    options: dict[str, Any] = {"enable_lora": True, "max_lora_rank": request["rank"]} if adapter else {}
    if (share := _memory_share()) is not None:
        options["gpu_memory_utilization"] = share
    llm = vllm.LLM(
        model=request["model"], dtype=request["dtype"], load_format="safetensors", max_num_seqs=request["rows"],
        max_model_len=request["length"], seed=0, disable_log_stats=True, **options,
    )  # fmt: skip
    settings = [
        vllm.SamplingParams(temperature=0.0, max_tokens=each["max_new_tokens"], stop=each["stop"],
                            stop_token_ids=request["ends"])
        for each in request["prompts"]
    ]  # fmt: skip
    outputs = llm.generate(
        [{"prompt_token_ids": each["ids"]} for each in request["prompts"]],
        settings,
        use_tqdm=_progress_to(folder / "finished"),
        lora_request=LoRARequest("trained", 1, adapter) if adapter else None,
    )
    (folder / "answers.part").write_text(json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
    os.replace(folder / "answers.part", folder / "answers.json")


def _memory_share() -> float | None:
    """vLLM's share of the GPU's whole memory, from what is free; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    free, whole = torch.cuda.mem_get_info()
    return FREE_SHARE * free / whole


def _progress_to(path: Path) -> Any:
    """A progress bar for vLLM that writes the number of finished answers to a file instead of the terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Finished(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            path.write_text(str(int(self.n)))
            return shown

    return functools.partial(Finished, file=open(os.devnull, "w"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
