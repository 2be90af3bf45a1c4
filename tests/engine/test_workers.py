"""Samples that fail are named; processes that load data outlast signals for a while."""

import os
import signal
import time
from multiprocessing import get_context
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset
from PIL import Image

from mmuniformer.engine.faults import explained, explanation, from_worker
from mmuniformer.engine.loops import EpochLoop
from mmuniformer.engine.workers import NamingCompose, PatientWorker, is_cut_off, name_samples
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer


@pytest.fixture(params=['a.jpg', 'a.png', 'a.JPEG'])
def image(request, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    path = tmp_path / request.param
    Image.fromarray(noise).save(path, **({} if path.suffix == '.png' else {'exif': EXIF}))
    return path


EXIF = b'Exif\x00\x00thumbnail \xff\xd8\xff\xda \xff\xd9'


def read(data):
    image = cv2.imread(data['img_path'])
    return {**data, 'img': image, 'ori_shape': image.shape[:2]}


def test_whole_files_pass(image):
    assert not is_cut_off(image)
    with open(image, 'ab') as file:
        file.write(b'\x00' * 5000)  # some cameras do
    assert not is_cut_off(image)
    with open(image, 'ab') as file:
        file.write(b'a video \xff\xda' * 9000)  # phones do
    assert not is_cut_off(image)
    data = {'img_path': str(image), 'width': 400, 'height': 300}
    assert NamingCompose([read], True)(data)['img'].shape == (300, 400, 3)


@pytest.mark.parametrize('share', [0.3, 0.99])
def test_cut_off_files_are_refused(image, share):
    content = image.read_bytes()
    image.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf'{image.name} (ends early|cannot be used)'):
        NamingCompose([read], True)({'img_path': str(image)})


def test_other_formats_pass(tmp_path):
    for name in ('a.bmp', 'none.jpg', 'b.jpg'):
        if name != 'none.jpg':
            (tmp_path / name).write_bytes(b'RIFF')
        assert not is_cut_off(tmp_path / name)


def test_other_size_than_annotated(image):
    data = {'img_path': str(image), 'width': 300, 'height': 400}
    text = r'is 400 x 300 \(width x height\), and was annotated at 300 x 400'
    with pytest.raises(UserError, match=text):
        NamingCompose([read], True)(data)
    assert NamingCompose([read], False)(data) is not None


@pytest.mark.parametrize('shape', [(300, 400), (400, 300), (300, 399)])
def test_label_map_of_another_size_than_its_image(image, shape):
    data = {'img_path': str(image), 'seg_map_path': 'b.png'}
    steps = [read, lambda data: {**data, 'gt_seg_map': np.zeros(shape)}, lambda data: data]
    assert NamingCompose(steps, False)(data)
    if shape == (300, 400):
        assert NamingCompose(steps, True)(data)
        crop = [*steps, lambda data: {**data, 'gt_seg_map': np.zeros((9, 9))}]
        assert NamingCompose(crop, True)(data)
    else:
        text = rf'b.png is {shape[1]} x {shape[0]}, its image .*{image.name} 400 x 300 \(width'
        with pytest.raises(UserError, match=text):
            NamingCompose(steps, True)(data)


def test_file_that_is_gone(tmp_path):
    def open_it(data):
        raise FileNotFoundError(2, 'No such file', data['img_path'])

    text = r'^/data/a.jpg with /data/a.png cannot be used \(FileNotFoundError: .* leave it out'
    with pytest.raises(UserError, match=text):
        NamingCompose([open_it], True)({'img_path': '/data/a.jpg', 'seg_map_path': '/data/a.png'})


def test_sample_that_is_passed_over():
    assert NamingCompose([lambda data: None], True)({'img_path': 'a.jpg'}) is None


def test_pipelines_in_wrappers():
    parts = [BaseDataset(lazy_init=True, pipeline=[dict]) for _ in range(2)]
    for part in parts:
        part._metainfo = {}
    name_samples(ConcatDataset(parts, lazy_init=True), True)
    assert [type(part.pipeline) for part in parts] == [NamingCompose] * 2
    assert parts[0].pipeline.transforms == [dict]


def wait_in_worker(init, ready):
    init(0)
    ready.set()
    time.sleep(30)


@pytest.mark.parametrize(('patient', 'code'), [(1, None), (0, 0)])
def test_worker_outlasts_signals_while_the_run_goes_on(patient, code):
    context = get_context('fork')
    init, ready = PatientWorker(None), context.Event()
    init.patient.fill_(patient)
    process = context.Process(target=wait_in_worker, args=(init, ready))
    process.start()
    ready.wait()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    process.join(0.5 if patient else 10)
    assert process.exitcode == code
    process.kill()
    process.join()


def test_errors_of_workers_lose_their_traceback():
    text = (
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call '
        'last):\n  ...\nmmuniformer.errors.UserError: a.jpg is gone: put it back\n'
    )
    assert str(from_worker(UserError(text))) == 'a.jpg is gone: put it back'
    assert str(from_worker(UserError('a.jpg'))) == 'a.jpg'


class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = UniFormer('nano')
        self.head = torch.nn.Linear(2, 2)


def test_killed_workers_and_lost_processes():
    for text in (
        'DataLoader worker (pid 4711) is killed by signal: Killed. ',
        'DataLoader worker (pid(s) 4711, 12) exited unexpectedly',
    ):
        assert explanation(text, Detector()).startswith('Process 4711')
        assert 'num_workers' in explanation(text, Detector())
    lost = '[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234'
    assert explanation(lost, Detector()) == (
        'Another process of this run has ended: see its message above, or in its log'
    )
    assert explanation('a bug', Detector()) is None


def test_only_trainings_are_told_where_to_go_on(tmp_path):
    runner = SimpleNamespace(_train_loop=None, work_dir=tmp_path, model=Detector())
    with pytest.raises(UserError, match=r'of the dataloader$'), explained(runner):
        raise RuntimeError('DataLoader worker (pid 4711) is killed by signal: Killed. ')
    runner._train_loop = EpochLoop.__new__(EpochLoop)
    with pytest.raises(UserError, match='a.jpg: gone. No checkpoint was'), explained(runner):
        raise OSError(2, 'gone', 'a.jpg')


def test_unused_outputs_are_told_to_be_left_out():
    """The head takes stages 3 and 4 only."""
    model = Detector()
    names = [name for name, _ in model.named_parameters()]
    norms = ('backbone.norm1', 'backbone.norm2')
    unused = ' '.join(str(i) for i, name in enumerate(names) if name.startswith(norms))
    text = f'Parameter indices which did not receive grad for rank 1: {unused}\n In addition'
    said = explanation(text, model)
    assert said.startswith('backbone.norm1.weight, backbone.norm1.bias, backbone.norm2.weight')
    assert 'Set model.backbone.out_indices=(2, 3) and the neck' in said
    other = explanation(f'did not receive grad for rank 0: {names.index("head.bias")}', model)
    assert other.startswith('head.bias get no gradient')
    assert 'out_indices' not in other
    assert 'find_unused_parameters=True' in other
