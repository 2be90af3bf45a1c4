"""mmengine's runner with a look at the data before anything is built on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import nn

from mmuniformer.datasets.annotations import check_dataset
from mmuniformer.registry import RUNNERS


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """Check annotation files first: the frameworks fail deep inside, or leave data out silently.

    Example:
        >>> runner_type = 'mmuniformer.CheckedRunner'
    """

    def train(self) -> nn.Module:
        """Check the data, then train.

        Raises:
            UserError: Annotations or images can't be used; names the file and the way out.
        """
        self.check_data(self._train_dataloader, self._val_dataloader)
        return super().train()

    def val(self) -> dict[str, float]:
        """Check the data, then validate.

        Raises:
            UserError: As for ``train``.
        """
        self.check_data(self._val_dataloader)
        return super().val()

    def test(self) -> dict[str, float]:
        """Check the data, then test.

        Raises:
            UserError: As for ``train``.
        """
        self.check_data(self._test_dataloader)
        return super().test()

    def check_data(self, *loaders: Any) -> None:
        """Check loaders that are still configs, on one process of several."""
        for loader in loaders if is_main_process() else ():
            if isinstance(loader, Mapping):
                check_dataset(loader['dataset'])
