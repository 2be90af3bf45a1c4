"""The frameworks' own inferencers with our configs and checkpoints, in a script and a notebook."""

import textwrap

import pytest
import torch

from mmuniformer.apis.config import find_config, load_config, scope_of, split_data
from mmuniformer.apis.models import build_model
from mmuniformer.datasets.checks.config import dataset_meta

CONFIGS = {
    'det': 'mask-rcnn_uniformer-nano_fpn_toy',
    'seg': 'upernet_uniformer-nano_toy-128x128',
    'pose': 'td-hm_uniformer-nano_toy-128x96',
}
# What a user writes.
CELLS = {
    'det': """
        from mmdet.apis import DetInferencer
        inferencer = DetInferencer(*files['det'], device='cpu', show_progress=False)
        found = inferencer(files['images'], out_dir=files['out'] + '/det', pred_score_thr=0)
    """,
    'seg': """
        from mmseg.apis import MMSegInferencer
        inferencer = MMSegInferencer(*files['seg'], device='cpu')
        found = inferencer(files['images'], out_dir=files['out'] + '/seg', return_vis=True)
    """,
    'pose': """
        from mmpose.apis import MMPoseInferencer
        det_config, det_weights = files['det']
        inferencer = MMPoseInferencer(
            *files['pose'], det_model=det_config, det_weights=det_weights, det_cat_ids=[0],
            device='cpu',
        )
        found = list(inferencer(files['images'], out_dir=files['out'] + '/pose', bbox_thr=0))
    """,
}
CELLS = {task: textwrap.dedent(cell) for task, cell in CELLS.items()}
pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def files(tmp_path_factory, toy_root):
    """Config, checkpoint (as training writes it, with the dataset's meta) and two images."""
    folder = tmp_path_factory.mktemp('inferencers')
    places = {
        'images': [str(p) for p in sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))[:2]],
        'out': str(folder / 'out'),
    }
    for task, config in CONFIGS.items():
        torch.manual_seed(0)
        cfg = load_config(config)
        with scope_of(cfg):
            meta = {'dataset_meta': dataset_meta(split_data(cfg))}
        weights = build_model(cfg).state_dict()
        torch.save({'state_dict': weights, 'meta': meta}, folder / f'{task}.pth')
        places[task] = (str(find_config(config)), str(folder / f'{task}.pth'))
    return places


def run_cell(task, files):
    space = {'files': files}
    exec(CELLS[task], space)
    return space['found']


def test_det_inferencer(files):
    found = run_cell('det', files)['predictions']
    assert len(found) == 2
    assert len(found[0]['scores']) == len(found[0]['masks']) > 0
    assert set(found[0]['labels']) <= {0, 1, 2}


def test_seg_inferencer(files):
    found = run_cell('seg', files)
    assert len(found['predictions']) == len(found['visualization']) == 2
    assert found['predictions'][0].shape == (128, 128)
    assert found['predictions'][0].max() < 4
    assert found['visualization'][0].shape == (128, 128, 3)


def test_pose_inferencer_after_a_detector(files):
    found = run_cell('pose', files)
    assert len(found) == 2
    people = found[0]['predictions'][0]
    assert people
    assert len(people[0]['keypoints']) == len(people[0]['keypoint_scores']) == 17


NOTEBOOK = """
import ast, asyncio, io, sys, types

class Stream(io.TextIOBase):  # no terminal, no file descriptor
    def write(self, text):
        sys.__stderr__.write(text)
        return len(text)

async def notebook(files, cells):
    real, sys.stdout = sys.stdout, Stream()
    space = {'asyncio': asyncio, 'files': files, '__name__': '__main__'}
    for task, cell in cells.items():
        code = compile('await asyncio.sleep(0)' + cell, '<cell>', 'exec',
                       ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await types.FunctionType(code, space)()
        real.write(f'{task} found {len(space["found"])}\\n')

del __file__
"""


def test_notebook(files, run_python, tmp_path):
    """Cells run in an event loop, without file and terminal.

    Nothing imports mmuniformer before the first config does.
    """
    script = NOTEBOOK + f'asyncio.run(notebook({files!r}, {CELLS!r}))\n'
    (tmp_path / 'notebook.py').write_text(script)
    done = run_python('notebook.py')
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ['det found 2', 'seg found 2', 'pose found 2']
