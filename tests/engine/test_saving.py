"""Checkpoints are whole or not there, the last good one stays, and --resume finds it."""

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmuniformer.compat import load_file
from mmuniformer.engine import saving
from mmuniformer.engine.hooks import CheckpointHook
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models.weights.files import whole_file

EVERY = {'interval': 1, 'max_keep_ckpts': 1}


def names(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth'))


def test_config_of_mmengines_hook_builds_ours(train):
    runner = train(checkpoint=EVERY)
    assert [type(hook) for hook in runner.hooks if 'Checkpoint' in type(hook).__name__] == [
        CheckpointHook
    ]
    assert names(runner.work_dir) == ['epoch_3.pth']
    assert saving.named_last(runner.work_dir) == Path(runner.work_dir, 'epoch_3.pth')


@pytest.mark.parametrize('by_epoch', [True, False])
def test_no_file_has_its_name_before_it_is_whole(train, tmp_path, monkeypatch, by_epoch):
    """At every write the one before is still there and named, and the new one has another name."""
    seen, save = [], torch.save

    def look(content, file, *args, **kwargs):
        save(content, file, *args, **kwargs)
        if 'message_hub' in content:
            seen.append((names(tmp_path / 'work'), saving.named_last(tmp_path / 'work')))

    monkeypatch.setattr('mmengine.runner.checkpoint.torch.save', look)
    train(checkpoint=EVERY, by_epoch=by_epoch)
    for number, (files, last) in enumerate(seen):
        before = f'epoch_{number}.pth' if by_epoch else f'iter_{number}.pth'
        assert files == [before] * bool(number)
        assert last == (tmp_path / 'work' / before if number else None)
    assert len(seen) == (3 if by_epoch else 6)


def test_best_checkpoint_stays_until_a_better_one_is_there(train, tmp_path):
    options = {**EVERY, 'save_best': 'count', 'rule': 'greater'}
    runner = train(checkpoint=options, val=True)
    assert names(tmp_path / 'work') == ['best_count_epoch_1.pth', 'epoch_3.pth']
    assert load_file(tmp_path / 'work' / 'epoch_3.pth')['message_hub']['runtime_info'][
        'best_ckpt'
    ] == str(tmp_path / 'work' / 'best_count_epoch_1.pth')
    again = train(checkpoint={**options, 'rule': 'less'}, val=True, epochs=4, resume=True)
    assert again.epoch == 4
    assert runner.work_dir == again.work_dir
    assert names(tmp_path / 'work') == ['best_count_epoch_1.pth', 'epoch_4.pth']


@pytest.fixture
def limited():
    """Set the largest file that this process can write."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


class At(Hook):
    """Does something after the first epoch is saved."""

    priority = 'LOWEST'

    def __init__(self, act):
        self.act = act

    def after_train_epoch(self, runner):
        if runner.epoch == 0:
            self.act(runner)


def test_file_size_limit_is_named_and_the_last_checkpoint_stays(train, tmp_path, limited):
    with pytest.raises(UserError) as caught:
        train(checkpoint=EVERY, hooks=[At(lambda runner: limited(3000))])
    limited(resource.RLIM_INFINITY)
    work = tmp_path / 'work'
    text = f'{work}/epoch_2.pth could not be written: File too large. The last good checkpoint is '
    assert str(caught.value) == f'{text}{work}/epoch_1.pth: train again with --resume'
    assert names(work) == ['epoch_1.pth']
    assert not list(work.glob('.part*'))
    assert train(checkpoint=EVERY, resume=True).epoch == 3
    assert names(work) == ['epoch_3.pth']


@pytest.mark.parametrize('call', ['write_bytes', 'fsync'])
def test_full_disk_is_named(train, tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(runner):
        if call == 'fsync':
            monkeypatch.setattr(os, 'fsync', full)
        else:
            monkeypatch.setattr('mmengine.fileio.LocalBackend.put', full)

    with pytest.raises(UserError, match=r'epoch_2\.pth could not .*No space left .*epoch_1\.pth'):
        train(checkpoint=EVERY, hooks=[At(fill)])
    monkeypatch.undo()
    assert names(tmp_path / 'work') == ['epoch_1.pth']
    assert not list((tmp_path / 'work').glob('.part*'))


def test_file_systems_that_sync_no_folders(tmp_path, monkeypatch):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, 'fsync', fsync)
    with whole_file(tmp_path / 'a.pth') as part:
        part.write_bytes(b'whole')
    assert (tmp_path / 'a.pth').read_bytes() == b'whole'


def test_work_dir_that_becomes_a_file_is_named(train, tmp_path):
    def replace(runner):
        os.rename(runner.work_dir, tmp_path / 'moved')
        Path(runner.work_dir).touch()

    with pytest.raises(UserError, match=r'work.*(File exists|Not a directory)'):
        train(checkpoint=EVERY, hooks=[At(replace)])
    assert names(tmp_path / 'moved') == ['epoch_1.pth']


def test_leftovers_of_killed_runs_are_removed(train, tmp_path):
    (tmp_path / 'work').mkdir()
    for name in ('.part-0.pth', 'mine.pth', '.part-0.json'):
        (tmp_path / 'work' / name).touch()
    train()
    left = sorted(os.listdir(tmp_path / 'work'))
    assert [name for name in left if name.startswith(('.part', 'mine'))] == [
        '.part-0.json',
        'mine.pth',
    ]


class TestResume:
    @pytest.fixture
    def work(self, train, tmp_path):
        train(checkpoint={'interval': 1})
        return tmp_path / 'work'

    def resume(self, train, caplog=None):
        return train(checkpoint={'interval': 1}, epochs=4, resume=True)

    @pytest.fixture
    def lines(self, monkeypatch):
        found = []
        monkeypatch.setattr(saving, 'print_log', lambda text, *_: found.append(text))
        return found

    def test_named_checkpoint_comes_first(self, work, lines):
        saving.point_to(work, work / 'epoch_1.pth')
        assert saving.resumable(work) == work / 'epoch_1.pth'
        assert lines == []

    @pytest.mark.parametrize('damage', ['truncated', 'empty', 'gone', 'nan', 'weights', 'meta'])
    def test_damaged_one_gives_way_to_the_one_before(self, train, work, lines, damage):
        last = work / 'epoch_3.pth'
        content = load_file(last)
        if damage == 'truncated':
            last.write_bytes(last.read_bytes()[:-3000])
        elif damage == 'empty':
            last.write_bytes(b'')
        elif damage == 'gone':
            last.unlink()
        elif damage == 'nan':
            content['state_dict']['last.weight'][0, 1] = float('nan')
            torch.save(content, last)
        elif damage == 'meta':
            torch.save({**content, 'meta': 'text'}, last)
        else:
            torch.save({'state_dict': content['state_dict'], 'meta': content['meta']}, last)
        runner = train(checkpoint={'interval': 1}, epochs=4, resume=True)
        assert runner.iter == 8
        assert runner._load_from == str(work / 'epoch_2.pth')
        assert len(lines) == 1
        assert 'epoch_3.pth' in lines[0]
        assert lines[0].endswith(f'Resuming from {work}/epoch_2.pth instead')

    @pytest.mark.parametrize('pointer', [None, '', '\n', b'\xff'])
    def test_files_are_found_without_a_pointer(self, work, lines, pointer):
        (work / 'last_checkpoint').unlink()
        if pointer is not None:
            (work / 'last_checkpoint').write_bytes(
                pointer if isinstance(pointer, bytes) else pointer.encode()
            )
        for name in ('epoch_3.pth', 'epoch_1.pth', 'epoch_2.pth'):  # copied in another order
            os.utime(work / name)
        torch.save({'state_dict': {'a': torch.ones(1)}}, work / 'pretrained.pth')
        (work / 'best_epoch_9.pth').write_bytes((work / 'epoch_3.pth').read_bytes())
        assert saving.resumable(work) == work / 'epoch_3.pth'
        assert lines == [
            f'{work}/last_checkpoint names none. Resuming from {work}/epoch_3.pth instead'
        ]

    def test_nothing_is_overwritten_where_none_is_whole(self, train, work):
        for path in work.glob('*.pth'):
            path.write_bytes(b'')
        with pytest.raises(CheckpointError, match=r'epoch_3\.pth is trunc.*No other'):
            train(checkpoint={'interval': 1}, resume=True)
        assert names(work) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']

    def test_damaged_file_that_was_asked_for_is_refused_with_the_one_before(self, train, work):
        last = work / 'epoch_3.pth'
        last.write_bytes(last.read_bytes()[:-3000])
        with pytest.raises(CheckpointError, match=r'epoch_3.*/epoch_2\.pth is whole: resume from'):
            train(resume=True, load_from=str(last))

    def test_files_are_read_whole_until_one_is(self, work, lines, monkeypatch):
        read = []
        load = saving.load_state_dict_file
        monkeypatch.setattr(
            saving, 'load_state_dict_file', lambda path: read.append(path.name) or load(path)
        )
        last = work / 'epoch_3.pth'
        last.write_bytes(last.read_bytes()[:-3000])
        assert saving.resumable(work) == work / 'epoch_2.pth'
        assert saving.whole_beside(last) == work / 'epoch_2.pth'
        assert read == ['epoch_3.pth', 'epoch_2.pth', 'epoch_2.pth']

    def test_new_work_dir(self, tmp_path):
        assert saving.resumable(tmp_path / 'none') is None


def test_moved_work_dir_resumes(train, tmp_path):
    train(checkpoint={'interval': 1})
    os.rename(tmp_path / 'work', tmp_path / 'other')
    assert saving.resumable(tmp_path / 'other') == tmp_path / 'other' / 'epoch_3.pth'


@pytest.mark.parametrize('key', ['max_epochs', 'max_iters'])
def test_training_for_nothing_is_refused(train, key, monkeypatch):
    built = []
    monkeypatch.setattr(Runner, 'build_train_loop', lambda self, loop: built.append(loop))
    with pytest.raises(UserError, match=f'train_cfg.{key}=0: set it to 1 or more'):
        train(epochs=0, by_epoch=key == 'max_epochs')
    assert not built
