"""The table of prediction speed, from runs of this package and of the frameworks' inferencers."""

import prediction_speed
import pytest
from nano_models import CONFIGS, save_weights

SECONDS = {'model alone': 1.0, 'predict': 2.0, 'predict --no-vis': 1.25, 'inferencer': 4.0}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp('weights'))


@pytest.mark.integration
@pytest.mark.parametrize('task', CONFIGS)
def test_table(task, weights, toy_root, monkeypatch, capsys):
    def interleaved(calls, repeats, device):
        for call in calls.values():
            call()
        return {name: [SECONDS[name]] * repeats for name in calls}

    monkeypatch.setattr(prediction_speed.measure, 'interleaved', interleaved)
    monkeypatch.setattr(prediction_speed.measure, 'peak_memory_on_cpu', lambda *_: (0, 7 << 20))
    images = sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))[:2]
    checkpoint = weights / f'{task}.pth'
    prediction_speed.main([task, CONFIGS[task], *map(str, [checkpoint, *images]), '--count', '3'])
    lines = capsys.readouterr().out.splitlines()
    assert '| model alone | 3.00 | 1.00 | 0% | 7 |' in lines
    assert '| predict | 1.50 | 0.50 | 0% | 7 |' in lines
    assert '| inferencer | 0.75 | 0.25 | 0% | 7 |' in lines
