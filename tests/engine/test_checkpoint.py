"""Checkpoints of whole models: refused where they would half load, else in current keys."""

import logging

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmuniformer.engine import checkpoint as module
from mmuniformer.engine.checkpoint import checked_state_dict
from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer, UniFormerLight


@pytest.fixture
def log(monkeypatch):
    """What is logged: levels and lines."""
    lines = []
    monkeypatch.setattr(
        module, 'print_log', lambda text, logger, level: lines.append((level, text))
    )
    return lines


class Detector(BaseModel):
    """The smallest model with a backbone of ours and a head with classes."""

    def __init__(self, backbone=None, classes=3):
        super().__init__()
        self.backbone = backbone or UniFormer('nano')
        self.fc_cls = nn.Linear(8, classes + 1)
        self.norm_head = nn.BatchNorm1d(8)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


class TestWholeModel:
    def check(self, checkpoint, model=None, fine_tune=False):
        checked_state_dict(model or Detector(), checkpoint, 'epoch_1.pth', fine_tune)

    def test_own_checkpoint_fits(self):
        state = Detector().state_dict()
        self.check({'state_dict': state})
        self.check({'state_dict': {f'module.{k}': v for k, v in state.items()}})
        self.check(state)

    def test_inside_test_time_augmentation(self):
        class Augmented(BaseTTAModel):
            def merge_preds(self, data_samples_list):
                return data_samples_list

        model = Augmented(module=Detector())
        self.check({'state_dict': Detector().state_dict()}, model)
        with pytest.raises(CheckpointError, match='classes in the file'):
            self.check({'state_dict': Detector(classes=80).state_dict()}, model)

    def test_other_arch(self):
        state = Detector(UniFormer('nano', depths=(1, 2, 5, 1))).state_dict()
        for fine_tune in (False, True):
            with pytest.raises(CheckpointError, match=r'(?s)epoch_1.pth.*depths=\(1, 2, 5, 1\)'):
                self.check({'state_dict': state}, fine_tune=fine_tune)

    def test_hourglass_detector(self):
        state = Detector(UniFormerLight('nano')).state_dict()
        with pytest.raises(CheckpointError, match='UniFormerLight'):
            self.check({'state_dict': state})

    def test_output_norms_must_be_there(self):
        state = {k: v for k, v in Detector().state_dict().items() if 'backbone.norm4' not in k}
        with pytest.raises(CheckpointError, match=r'Missing in the file: norm4'):
            self.check({'state_dict': state})

    def test_output_norms_of_stages_that_are_not_returned(self):
        model = Detector(UniFormer('nano', out_indices=(3,)))
        self.check({'state_dict': Detector().state_dict()}, model)

    def test_imagenet_file(self):
        state = UniFormer('nano').state_dict()
        for raw in ({'model': {k: v for k, v in state.items() if 'norm' not in k}}, state):
            with pytest.raises(CheckpointError, match=r'bare backbone.*model.backbone.init_cfg'):
                self.check(raw, fine_tune=True)

    def test_released_layouts_become_current_ones(self):
        state = Detector().state_dict()
        found = checked_state_dict(
            Detector(), {'model': {f'module.{k}': state[k] for k in state}}, ''
        )
        assert list(found) == list(state)

    def test_other_network(self):
        with pytest.raises(CheckpointError, match='start.* with layer1'):
            self.check({'state_dict': {'layer1.weight': torch.rand(2)}})

    def test_class_counts(self):
        checkpoint = {'state_dict': Detector(classes=80).state_dict()}
        with pytest.raises(CheckpointError) as caught:
            self.check(checkpoint)
        assert 'fc_cls.bias: 80 classes in the file, 3 in the model' in str(caught.value)

    def test_class_counts_in_fine_tuning(self, log):
        self.check({'state_dict': Detector(classes=80).state_dict()}, fine_tune=True)
        assert [level for level, _ in log] == [logging.WARNING]
        assert '2 tensors outside the backbone start anew' in log[0][1]

    def test_missing_head(self):
        state = {k: v for k, v in Detector().state_dict().items() if not k.startswith('fc_cls')}
        with pytest.raises(CheckpointError, match='missing: fc_cls.weight, fc_cls.bias'):
            self.check({'state_dict': state})

    def test_additional_heads_are_not_needed(self):
        state = Detector().state_dict() | {'mask_head.weight': torch.rand(3)}
        self.check({'state_dict': state})

    def test_pose_names_of_old(self):
        class Pose(BaseModel):
            def __init__(self):
                super().__init__()
                self.backbone = UniFormer('nano', out_indices=(3,))
                self.head = nn.ModuleDict({'final_layer': nn.Conv2d(8, 17, 1)})

            def forward(self, inputs, data_samples=None, mode='tensor'):
                return self.backbone(inputs)

        state = {k.replace('head.', 'keypoint_head.'): v for k, v in Pose().state_dict().items()}
        self.check({'state_dict': state}, Pose())
        state['keypoint_head.final_layer.bias'] = torch.rand(133)
        with pytest.raises(CheckpointError, match='133 keypoints in the file, 17 in the model'):
            self.check({'state_dict': state}, Pose())

    def test_recorded_head_dim(self):
        checkpoint = {'state_dict': Detector().state_dict()}
        checkpoint['meta'] = {'mmuniformer': {'head_dim': 32}}
        with pytest.raises(CheckpointError, match='head_dim 32 .*Set head_dim=32'):
            self.check(checkpoint)

    def test_models_that_rename_keys_as_they_load(self):
        """As mmdet's semi-supervised detectors take the checkpoint of a plain one."""

        class Student(BaseModel):
            def __init__(self):
                super().__init__()
                self.student = Detector()

            def _load_from_state_dict(self, state_dict, *args):
                for key in list(state_dict):
                    state_dict[f'student.{key}'] = state_dict.pop(key)
                super()._load_from_state_dict(state_dict, *args)

            def forward(self, inputs, data_samples=None, mode='tensor'):
                return self.student(inputs)

        self.check({'state_dict': Detector().state_dict()}, Student())
        with pytest.raises(CheckpointError, match='80 classes in the file, 3 in the model'):
            self.check({'state_dict': Detector(classes=80).state_dict()}, Student())

    def test_sharded_models_pass(self, monkeypatch):
        """FSDP and DeepSpeed hold flat or empty parameters while a checkpoint is loaded."""

        class Sharding(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module
                for parameter in module.parameters():
                    parameter.data = torch.empty(0)

        monkeypatch.setitem(MODEL_WRAPPERS.module_dict, 'Sharding', Sharding)
        self.check({'state_dict': Detector().state_dict()}, Sharding(Detector()))

    def test_models_of_others_pass(self):
        self.check({'state_dict': {}}, nn.Linear(2, 2))

    def test_a_part_that_the_model_has_by_an_old_name_keeps_it(self):
        class Own(Detector):
            def __init__(self):
                super().__init__()
                self.keypoint_head = nn.Linear(2, 2)

        state = Own().state_dict()
        assert list(checked_state_dict(Own(), {'state_dict': state}, '')) == list(state)

    def test_name_tells_head_dim(self):
        state = {'state_dict': Detector().state_dict()}
        with pytest.raises(CheckpointError, match=r'head_dim 32 \(as its name tells\)'):
            checked_state_dict(Detector(), state, 'detector_dim32.pth')
