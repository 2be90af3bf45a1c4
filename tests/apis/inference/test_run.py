"""The loop from frames to results, and to files."""

import threading
import weakref
from contextlib import closing

import pytest
from PIL import Image

from mmuniformer.apis.inference import run
from mmuniformer.apis.inference.run import Task, batches, predict, predict_and_write
from mmuniformer.apis.inference.sources import Frames
from mmuniformer.errors import InputError

STEPS = ('prepare', 'run', 'write')
DEADLINE = 60
"""Seconds after which a thread that waits for another gives up: the test fails then."""


class Log(Task):
    """Notes what is done on which frame, which may wait for something, or fail."""

    def __init__(self, **do):
        self.do, self.events = do, []
        self.lock = threading.Condition()

    def note(self, what, frame):
        with self.lock:
            self.events.append(f'{what} {frame.id}')
            self.lock.notify_all()
        self.do.get(f'{what}_{frame.id}', bool)()

    def until(self, event):
        """Return a function that waits for an event."""

        def wait():
            with self.lock:
                assert self.lock.wait_for(lambda: event in self.events, DEADLINE), self.events

        return wait

    def prepare(self, frame):
        self.note('prepare', frame)
        return frame

    def __call__(self, frames):
        for frame in frames:
            self.note('run', frame)
        return [frame.id * 10 for frame in frames]

    def add(self, task, frame, result):
        """A writer's."""
        assert result == frame.id * 10
        self.note('write', frame)


def raises(error):
    def fail():
        raise error

    return fail


def frames_of(folder, *names):
    for name in names:
        Image.new('RGB', (40, 30)).save(folder / name)
    return Frames([folder / name for name in names])


FIVE = ('a.png', 'b.png', 'c.png', 'd.png', 'e.png')


@pytest.mark.parametrize(
    ('error', 'reason'),
    [(InputError('too small'), 'too small'), (MemoryError(), 'not enough memory')],
)
@pytest.mark.parametrize('step', ['prepare', 'run'])
@pytest.mark.parametrize('batch_size', [1, 2, 4])
def test_a_frame_that_cannot_be_used_is_skipped(tmp_path, batch_size, step, error, reason):
    frames = frames_of(tmp_path, *FIVE)
    task = Log(**{f'{step}_3': raises(error), 'run_3': raises(error)})
    results = [(frame.source.name, result) for frame, result in predict(task, frames, batch_size)]
    assert results == [('a', 10), ('b', 20), ('d', 40), ('e', 50)]
    assert frames.skipped == [f'{tmp_path}/c.png: {reason}']
    assert (frames.read, frames.total) == (5, 5)


def test_an_error_of_the_caller_is_no_unusable_frame(tmp_path):
    """Results are yielded where errors of the network are caught."""
    frames = frames_of(tmp_path, 'a.png')
    with pytest.raises(InputError, match='mine'):  # noqa: PT012
        for _ in predict(Log(), frames):
            raise InputError('mine')
    assert not frames.skipped


def test_what_is_skipped_keeps_the_order_of_the_frames(tmp_path):
    """Files are read ahead of the network, and files that break it are between broken ones."""
    for name in ('b.png', 'd.png', 'f.png'):
        (tmp_path / name).write_bytes(b'x')
    frames = frames_of(tmp_path, 'a.png', 'c.png', 'e.png')
    frames = Frames([tmp_path])
    task = Log(run_1=raises(InputError('no')), run_2=raises(InputError('no')))
    assert [frame.source.name for frame, _ in predict(task, frames)] == ['e']
    assert [line[len(f'{tmp_path}/')] for line in frames.skipped] == ['a', 'b', 'c', 'd', 'f']


@pytest.mark.parametrize('batch_size', [1, 2])
def test_reading_network_and_writing_overlap(tmp_path, batch_size):
    frames = frames_of(tmp_path, *FIVE)
    task = Log()
    # Each waits for what a loop without threads would do after it.
    task.do['run_1'] = task.until(f'prepare {1 + batch_size}')
    task.do['write_1'] = task.until(f'run {1 + batch_size}')
    done = [frames.read for _ in predict_and_write(task, frames, task.add, batch_size)]
    for what in STEPS:
        events = [event for event in task.events if event.startswith(what)]
        assert events == [f'{what} {number}' for number in range(1, 6)]
    assert len(done) == done[-1] == 5


def test_few_frames_are_in_memory(tmp_path):
    """One is being written, one waits, one is in the network, one is read."""
    frames = frames_of(tmp_path, *FIVE)
    task = Log()
    task.do['write_1'] = task.until('prepare 3')
    for _ in predict_and_write(task, frames, task.add):
        pass
    for number in (3, 4, 5):
        written = task.events.index(f'write {number - 2}')
        assert written < task.events.index(f'run {number}')
        assert task.events.index(f'run {number - 2}') < task.events.index(f'prepare {number}')


def test_large_frames_are_alone_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'LARGE', 40 * 30)
    frames = frames_of(tmp_path, 'a.png', 'b.png', 'c.png')
    task = Log()
    for _ in predict_and_write(task, frames, task.add):
        pass
    assert task.events == [f'{what} {number}' for number in (1, 2, 3) for what in STEPS]


def test_a_task_on_a_cpu_has_no_threads(tmp_path):
    frames = frames_of(tmp_path, 'a.png', 'b.png', 'c.png')
    task, threads = Log(), set()
    task.overlapped = False
    for number in (1, 2, 3):
        for what in STEPS:
            task.do[f'{what}_{number}'] = lambda: threads.add(threading.current_thread())
    for _ in predict_and_write(task, frames, task.add):
        pass
    assert threads == {threading.main_thread()}
    assert task.events == [f'{what} {number}' for number in (1, 2, 3) for what in STEPS]


def test_a_frame_on_a_cpu_is_gone_before_the_next_is_read(tmp_path):
    frames = frames_of(tmp_path, 'a.png', 'b.png', 'c.png')
    task, seen = Log(), []
    task.overlapped = False

    def prepare(frame):
        assert all(image() is None for image in seen)
        seen.append(weakref.ref(frame.image))
        return frame

    task.prepare = prepare
    for _ in predict_and_write(task, frames, task.add):
        pass
    assert len(seen) == 3


@pytest.mark.parametrize('overlapped', [False, True])
@pytest.mark.parametrize('error', [KeyboardInterrupt(), ValueError('my head')])
@pytest.mark.parametrize('step', ['prepare', 'run'])
def test_what_was_predicted_before_an_error_is_written(tmp_path, step, error, overlapped):
    before = threading.enumerate()
    frames = frames_of(tmp_path, *FIVE)
    task = Log(**{f'{step}_3': raises(error)})
    task.overlapped = overlapped
    with pytest.raises(type(error)):
        for _ in predict_and_write(task, frames, task.add):
            pass
    assert [event for event in task.events if 'write' in event] == ['write 1', 'write 2']
    assert threading.enumerate() == before


def test_drawings_that_fail_are_skipped_and_files_that_fail_end_the_run(tmp_path):
    frames = frames_of(tmp_path, *FIVE)
    task = Log(write_2=raises(InputError('broken')), write_4=raises(OSError('full')))
    with pytest.raises(OSError, match='full'):
        for _ in predict_and_write(task, frames, task.add):
            pass
    assert frames.skipped == ['broken']
    assert 'write 3' in task.events


def test_a_caller_that_stops_leaves_no_thread(tmp_path):
    before = threading.enumerate()
    frames = frames_of(tmp_path, *FIVE)
    with closing(predict(Log(), frames)) as results:
        next(results)
    assert threading.enumerate() == before
    assert frames.read == 1


@pytest.mark.parametrize(
    ('max_pixels', 'lengths'), [(9000, [3, 2]), (3600, [3, 2]), (2400, [2, 2, 1]), (1, [1] * 5)]
)
def test_large_images_make_small_batches(tmp_path, max_pixels, lengths):
    frames = frames_of(tmp_path, *(f'{name}.png' for name in 'abcde'))  # of 1200 pixels
    seen = list(batches(frames, 3, max_pixels))
    assert [len(batch) for batch in seen] == lengths
    assert [frame.id for batch in seen for frame in batch] == [1, 2, 3, 4, 5]
