"""Training checkpoints of each stack, in tests/golden, serve on this one in every way."""

import pytest
import small_run
import torch

from mmuniformer import compat
from mmuniformer.models.weights.files import load_state_dict_file

LOSS = 0.2105
EPOCHS = (
    torch.tensor([[0.02443, 0.44130], [-0.41550, -0.35274]]),
    torch.tensor([[0.01736, 0.44175], [-0.32891, -0.26666]]),
)
"""The weights after one and two epochs without a break; the same on all stacks."""


@pytest.fixture(params=['pinned', 'onedl', 'old'])
def file(request, repository):
    return str(repository / 'tests' / 'golden' / f'training-{request.param}.pickle')


@pytest.mark.parametrize('way', ['allow-list', 'unpickler'])
def test_predict_reads_it(file, way, monkeypatch):
    if way == 'allow-list' and not compat.TORCH_HAS_ALLOW_LIST:
        pytest.skip('this torch has no allow-list')
    monkeypatch.setattr(compat, 'TORCH_HAS_ALLOW_LIST', way == 'allow-list')
    raw = load_state_dict_file(file)
    assert raw['message_hub']['log_scalars']['train/loss'].current() == pytest.approx(
        LOSS, abs=1e-4
    )
    torch.testing.assert_close(raw['state_dict']['layer.weight'], EPOCHS[0], atol=1e-4, rtol=0)


def test_init_cfg_reads_it(file):
    model = small_run.Model(init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    torch.testing.assert_close(model.layer.weight.detach(), EPOCHS[0], atol=1e-4, rtol=0)


def test_load_from_reads_it(file, tmp_path):
    runner = small_run.build(tmp_path, load_from=file)
    runner.load_or_resume()
    torch.testing.assert_close(runner.model.layer.weight.detach(), EPOCHS[0], atol=1e-4, rtol=0)
    assert runner.iter == 0


def test_run_is_resumed_from_it(file, tmp_path):
    """Random state and optimizer included: the second epoch is that of a run without a break."""
    runner = small_run.build(tmp_path, epochs=2, load_from=file, resume=True)
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    torch.testing.assert_close(runner.model.layer.weight.detach(), EPOCHS[1], atol=1e-4, rtol=0)
