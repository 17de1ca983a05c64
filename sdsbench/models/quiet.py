"""transformers without its bars and remarks."""

from __future__ import annotations


class quiet:
    """Silences transformers' loading bars and head warnings, which say what our banner says better."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
