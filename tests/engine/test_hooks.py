"""Hooks of mmengine's runner: refusing checkpoints of other models, folding before a test."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, PretrainedInit
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmuniformer.compat import load_file
from mmuniformer.engine.hooks import CheckpointGuardHook
from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer


class Classifier(BaseModel):
    def __init__(self, classes=3, **backbone):
        super().__init__()
        self.backbone = UniFormer('nano', **backbone)
        self.fc_cls = nn.Linear(128, classes + 1)

    def forward(self, inputs, mode='tensor'):
        score = self.fc_cls(self.backbone(torch.stack(inputs))[-1].mean((2, 3)))
        return {'loss': score.square().mean()} if mode == 'loss' else score


@pytest.fixture
def make_runner(tmp_path):
    made = []

    def make(model, train=False, **kwargs):
        if train:
            images = [{'inputs': torch.full((3, 32, 32), float(i))} for i in range(2)]
            kwargs |= {
                'train_dataloader': {
                    'batch_size': 2,
                    'num_workers': 0,
                    'dataset': images,
                    'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                },
                'train_cfg': {'by_epoch': True, 'max_epochs': kwargs.pop('epochs', 1)},
                'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
            }
        made.append(
            Runner(
                model,
                str(tmp_path / 'work'),
                custom_hooks=[{'type': 'mmuniformer.CheckpointGuardHook'}],
                experiment_name=f'{tmp_path.name}_{len(made)}',
                log_level='ERROR',
                default_scope='mmengine',
                **kwargs,
            )
        )
        return made[-1]

    return make


@pytest.fixture
def checkpoint(tmp_path):
    def save(model, name='weights.pth'):
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / name)
        return str(tmp_path / name)

    return save


def test_registry_builds_it():
    assert isinstance(HOOKS.build({'type': 'mmuniformer.CheckpointGuardHook'}), CheckpointGuardHook)


def test_fitting_checkpoint_loads(make_runner, checkpoint):
    source = Classifier()
    runner = make_runner(Classifier(), load_from=checkpoint(source))
    runner.load_or_resume()
    assert torch.equal(runner.model.fc_cls.weight, source.fc_cls.weight)


@pytest.mark.parametrize('fine_tune', [False, True])
def test_released_layout_loads(make_runner, tmp_path, fine_tune):
    """mmengine alone would find nothing under ``model`` and start from random weights."""
    source = Classifier()
    state = {f'module.{key}': value for key, value in source.state_dict().items()}
    torch.save({'model': state, 'epoch': 299}, tmp_path / 'released.pth')
    runner = make_runner(Classifier(), train=fine_tune, load_from=str(tmp_path / 'released.pth'))
    runner.load_or_resume()
    assert torch.equal(runner.model.fc_cls.weight, source.fc_cls.weight)


class TestInitCfgOfTheWholeModel:
    def train(self, make_runner, path, **cfg):
        model = Classifier()
        model.init_cfg = [{'type': PretrainedInit, 'checkpoint': str(path), **cfg}]
        runner = make_runner(model, train=True)
        runner.optim_wrapper['optimizer']['lr'] = 0.0
        runner.train()
        return runner.model

    @pytest.mark.parametrize('prefix', ['', 'module.'])
    def test_fitting_file_loads(self, make_runner, tmp_path, prefix):
        source = Classifier(classes=80)
        state = {f'{prefix}{key}': value for key, value in source.state_dict().items()}
        torch.save({'state_dict': state}, tmp_path / 'weights.pth')
        model = self.train(make_runner, tmp_path / 'weights.pth')
        weight = source.backbone.blocks3[0].attn.qkv.weight
        assert torch.equal(model.backbone.blocks3[0].attn.qkv.weight, weight)

    def test_other_arch_is_refused(self, make_runner, checkpoint):
        path = checkpoint(Classifier(depths=(1, 2, 5, 1)))
        with pytest.raises(CheckpointError, match=r'weights.pth does not fit[^@]*depths='):
            self.train(make_runner, path)

    def test_file_of_a_backbone_is_refused(self, make_runner, checkpoint):
        with pytest.raises(CheckpointError, match='bare backbone.*model.backbone.init_cfg'):
            self.train(make_runner, checkpoint(UniFormer('nano')))

    def test_layout_that_mmengine_does_not_read_is_refused(self, make_runner, tmp_path):
        torch.save({'model': Classifier().state_dict()}, tmp_path / 'nested.pth')
        with pytest.raises(CheckpointError, match='mmuniformer convert .*nested.pth NEW.pth'):
            self.train(make_runner, tmp_path / 'nested.pth')


def test_other_arch_is_refused_before_anything_loads(make_runner, checkpoint):
    path = checkpoint(Classifier(depths=(1, 2, 5, 1)))
    runner = make_runner(Classifier(), load_from=path)
    before = runner.model.backbone.blocks1[0].conv1.weight.clone()
    with pytest.raises(CheckpointError, match=r'weights.pth does not fit.*\n.*\n?.*depths=') as got:
        runner.load_or_resume()
    assert path in str(got.value)
    assert torch.equal(runner.model.backbone.blocks1[0].conv1.weight, before)


def test_other_classes_are_refused_for_testing(make_runner, checkpoint):
    runner = make_runner(Classifier(), load_from=checkpoint(Classifier(classes=80)))
    with pytest.raises(CheckpointError, match='80 classes in the file, 3 in the model'):
        runner.load_or_resume()


def test_other_classes_are_welcome_for_training(make_runner, checkpoint):
    source = Classifier(classes=80)
    runner = make_runner(Classifier(), train=True, load_from=checkpoint(source))
    runner.optim_wrapper['optimizer']['lr'] = 0.0
    runner.train()
    assert torch.equal(
        runner.model.backbone.blocks1[0].conv1.weight, source.backbone.blocks1[0].conv1.weight
    )


def test_training_records_head_dim_and_resumes(make_runner, tmp_path):
    make_runner(Classifier(), train=True).train()
    path = tmp_path / 'work' / 'epoch_1.pth'
    saved = load_file(path)
    assert saved['meta']['mmuniformer'] == {'head_dim': 16}
    resumed = make_runner(Classifier(), train=True, epochs=2, resume=True)
    resumed.train()
    assert resumed.epoch == 2
    other = make_runner(Classifier(head_dim=32), load_from=str(path))
    with pytest.raises(CheckpointError, match='head_dim 16 .* Set head_dim=16'):
        other.load_or_resume()


def test_resuming_with_other_classes_is_refused(make_runner, tmp_path):
    make_runner(Classifier(), train=True).train()
    runner = make_runner(Classifier(classes=5), train=True, epochs=2, resume=True)
    with pytest.raises(CheckpointError, match=r'the last checkpoint of .*work'):
        runner.train()


@pytest.mark.parametrize('resumed', [False, True])
def test_an_average_is_kept_beside_the_weights(make_runner, tmp_path, resumed):
    hook = {'type': 'mmuniformer.KeepEMAHook', 'momentum': 0.25}
    runner = make_runner(Classifier(), train=True, epochs=3)
    runner.register_hook(hook)
    seen = []

    class Watch(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner, *_, **__):
            seen.append(runner.model.fc_cls.weight.detach().clone())

    runner.register_hook(Watch())
    runner.train()
    if resumed:
        runner = make_runner(Classifier(), train=True, epochs=4, resume=True)
        runner.register_hook(hook)
        runner.register_hook(Watch())
        runner.train()
    saved = load_file(tmp_path / 'work' / f'epoch_{len(seen)}.pth')
    average = seen[0]
    for weight in seen[1:]:
        average = 0.75 * average + 0.25 * weight
    assert len(seen) == 3 + resumed
    assert torch.equal(saved['state_dict']['fc_cls.weight'], seen[-1])
    torch.testing.assert_close(saved['ema_state_dict']['module.fc_cls.weight'], average)
    assert torch.equal(runner.model.fc_cls.weight, seen[-1])
    runner.call_hook('before_val_epoch')
    assert torch.equal(runner.model.fc_cls.weight, seen[-1])
