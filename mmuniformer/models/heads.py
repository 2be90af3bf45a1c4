"""Classification heads for mmpretrain's ImageClassifier and mmaction2's recognizers.

Both frameworks call ``loss`` and ``predict`` of a head and hand it data samples with labels. The
heads here need neither of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmuniformer.errors import UserError
from mmuniformer.models.base import reset_parameters
from mmuniformer.models.mix_token import TokenBox, mix_images
from mmuniformer.registry import MODELS


class ClsHead(BaseModule):
    """A linear classifier on the mean over space and time.

    Args:
        num_classes: Count of classes.
        in_channels: Channels of the backbone's last stage.
        label_smooth: Share of a label that is spread over all classes, in [0, 1).
        init_cfg: As mmengine's modules take it.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        label_smooth: float = 0.0,
        init_cfg: Mapping[str, Any] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.label_smooth = label_smooth
        self.fc = nn.Linear(in_channels, num_classes)

    def pre_logits(self, feats: Sequence[Any]) -> Tensor:
        """Return what the classifier reads, ``(B, C)``, of the backbone's outputs."""
        return last_map(feats).flatten(2).mean(2)

    def forward(self, feats: Sequence[Any], **_: Any) -> Tensor:
        """Return the logits of inference, ``(B, classes)``."""
        return self.fc(self.pre_logits(feats))

    def predict(
        self,
        feats: Sequence[Any],
        data_samples: Sequence[BaseDataElement | None] | None = None,
        **_: Any,
    ) -> list[BaseDataElement]:
        """Write scores and label into each sample; logits of several views of it are summed."""
        logits = self(feats)
        samples = list(data_samples or [None] * len(logits))
        views = logits.unflatten(0, (len(samples), -1))
        # As published: the sum tells the label. The mean has a softmax that looks alike for all.
        scores = views.mean(1).softmax(-1)
        for index, score in enumerate(scores):
            if samples[index] is None:
                samples[index] = BaseDataElement()
            samples[index].set_field(score, 'pred_score')
            samples[index].set_field(score.argmax(-1, keepdim=True), 'pred_label')
        return samples

    def targets(self, data_samples: Sequence[BaseDataElement]) -> Tensor:
        """Return smoothed targets ``(B, classes)`` of hard labels or of the scores of mixed ones.

        mmpretrain's mixes are in ``gt_score``, mmaction2's in ``gt_label``.
        """
        labels = [sample.get('gt_score', sample.get('gt_label')) for sample in data_samples]
        count = self.num_classes
        rows = [
            # Of one class, an index has as many values as a score.
            label if label.numel() == count and (count > 1 or label.is_floating_point())
            else nn.functional.one_hot(label.flatten()[0], count)
            for label in labels
        ]  # fmt: skip
        rows = torch.stack(rows).to(self.fc.weight.dtype)
        return rows * (1 - self.label_smooth) + self.label_smooth / self.num_classes


@MODELS.register_module()
class TokenLabelHead(ClsHead):
    """Classifier trained with a label for each token, too (token labeling, arXiv 2104.10858).

    Inference adds half of each class's largest token logit to the logits of the mean. In training
    a sample has ``token_labels`` ``(classes, 2 + N)``: the label, the label of the whole crop and
    those of its tokens, as ``mmuniformer.datasets.token_labels`` makes them; without, every token
    has the sample's label.

    Args:
        num_classes: Count of classes.
        in_channels: Channels of the backbone's last stage.
        cls_weight: Weight of the loss on the class.
        dense_weight: Weight of the loss on tokens.
        ground_truth: Blend the sample's label into the label of the crop.
        label_smooth: Smoothing of samples without token labels.
        init_cfg: As mmengine's modules take it.

    Example:
        >>> import torch
        >>> TokenLabelHead(10, 64)((torch.rand(2, 64, 7, 7),)).shape
        torch.Size([2, 10])
    """

    aux_share = 0.5
    """What the logits of inference have of the largest token logits."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        cls_weight: float = 1.0,
        dense_weight: float = 1.0,
        ground_truth: bool = False,
        label_smooth: float = 0.1,
        init_cfg: Mapping[str, Any] | None = None,
    ):
        super().__init__(num_classes, in_channels, label_smooth, init_cfg)
        self.cls_weight = cls_weight
        self.dense_weight = dense_weight
        self.ground_truth = ground_truth
        self.aux_fc = nn.Linear(in_channels, num_classes)
        self.apply(reset_parameters)

    def forward(self, feats: Sequence[Any], **_: Any) -> Tensor:
        """Return the logits of inference, ``(B, classes)``."""
        tokens = last_map(feats).flatten(2).mT
        return super().forward(feats) + self.aux_share * self.aux_fc(tokens).amax(1)

    def train_logits(self, feats: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return logits of the class ``(B, classes)`` and of tokens ``(B, N, classes)``.

        The logits of tokens that MixToken moved are moved back to the image of their labels.
        """
        x = last_map(feats)
        aux = self.aux_fc(x.movedim(1, -1)).movedim(-1, 1)
        if isinstance(feats[-1], TokenBox):
            aux = mix_images(aux, feats[-1])
        return super().forward(feats), aux.flatten(2).mT

    def loss(
        self, feats: Sequence[Any], data_samples: Sequence[BaseDataElement], **_: Any
    ) -> dict[str, Tensor]:
        """Return the losses on the class and on tokens.

        Raises:
            UserError: Samples have another count of token labels than the backbone has tokens.
        """
        box = feats[-1] if isinstance(feats[-1], TokenBox) else None
        if 'token_labels' not in data_samples[0]:
            target = self.targets(data_samples)
        else:
            target = torch.stack([sample.token_labels for sample in data_samples])
            target = target.to(self.fc.weight.device, non_blocking=True)
        of_class, of_tokens = token_label_losses(
            *self.train_logits(feats), target, box, self.ground_truth
        )
        return {
            'loss_cls': self.cls_weight * of_class,
            'loss_dense': self.dense_weight * of_tokens,
        }


@MODELS.register_module()
class LightClsHead(ClsHead):
    """Classifier of light networks: in training another one reads the class token.

    The backbone has ``out_cls_token=True``. Both losses count half, and inference leaves the class
    token out. For images and clips.

    Example:
        >>> import torch
        >>> LightClsHead(10, 64)((torch.rand(2, 64, 7, 7), torch.rand(2, 64))).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        label_smooth: float = 0.0,
        init_cfg: Mapping[str, Any] | None = None,
    ):
        super().__init__(num_classes, in_channels, label_smooth, init_cfg)
        self.norm_cls = nn.LayerNorm(in_channels)
        self.token_fc = nn.Linear(in_channels, num_classes)
        self.apply(reset_parameters)

    def train_logits(self, feats: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the logits of the map and of the class token, each ``(B, classes)``."""
        return self(feats), self.token_fc(self.norm_cls(feats[-1]))

    def loss(
        self, feats: Sequence[Any], data_samples: Sequence[BaseDataElement], **_: Any
    ) -> dict[str, Tensor]:
        """Return half of each classifier's loss."""
        target = self.targets(data_samples)
        of_map, of_token = (soft_cross_entropy(x, target) for x in self.train_logits(feats))
        return {'loss_cls': 0.5 * of_map, 'loss_token': 0.5 * of_token}


def last_map(feats: Sequence[Any]) -> Tensor:
    """Return the last map of a backbone's outputs; a box or class token may follow it."""
    if isinstance(feats, Tensor):
        return feats
    return next(x for x in reversed(feats) if isinstance(x, Tensor) and x.ndim > 2)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of rows ``(..., classes)`` against probabilities."""
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def token_label_losses(
    cls: Tensor, aux: Tensor, target: Tensor, box: TokenBox | None, ground_truth: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the losses on the class and on tokens.

    Args:
        cls: Logits of the class, ``(B, classes)``.
        aux: Logits of tokens, ``(B, N, classes)``.
        target: ``(B, classes)``, or with token labels ``(B, classes, 2 + N)``.
        box: What MixToken took from the batch in reverse order, on the grid of tokens.
        ground_truth: Blend the first column, the sample's label, into the label of the crop.
    """
    if target.ndim == 2:
        of_class, of_tokens = target, target.unsqueeze(1).expand_as(aux)
    else:
        given, of_class, of_tokens = target[..., 0], target[..., 1], target[..., 2:].mT
        if of_tokens.shape != aux.shape:
            raise UserError(
                f'samples have {of_tokens.shape[1]} token labels of {of_tokens.shape[2]} classes, '
                f'the network {aux.shape[1]} tokens and {aux.shape[2]} classes: make as many '
                'labels (label_size is the side of the last map: 7 at 224 pixels, 12 at 384; '
                'TokenLabels takes square crops)'
            )
        if ground_truth:
            agree = of_class.argmax(-1, keepdim=True) == given.argmax(-1, keepdim=True)
            share = torch.where(agree, 0.5, 0.9).to(of_class)
            of_class = share * of_class + (1 - share) * given
    if box is not None:
        share = box.area / aux.shape[1]
        of_class = (1 - share) * of_class + share * of_class.flip(0)
    return soft_cross_entropy(cls, of_class), soft_cross_entropy(aux, of_tokens)
