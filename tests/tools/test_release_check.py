"""What a release must share: version, tag, changelog; and what its files must hold."""

import tarfile
import zipfile

import pytest
import release_check

CHANGELOG = '# Changelog\n\n## 1.2.0\n\n- New.\n\n## 1.1.0\n'
CITATION = 'title: a\nversion: 1.2.0\n'


@pytest.mark.parametrize('tags', [[], ['v1.2.0'], ['v1.2.0', 'nightly']])
def test_version_that_all_share_passes(tags):
    release_check.check_version('1.2.0', CHANGELOG, CITATION, tags)


@pytest.mark.parametrize(
    ('version', 'tags', 'reason'),
    [
        ('1.3.0', [], r'CHANGELOG.md starts with 1.2.0, not with 1.3.0'),
        ('1.2.0', ['v1.1.0'], r'tagged v1.1.0; its version is 1.2.0'),
    ],
)
def test_version_of_its_own_is_named(version, tags, reason):
    with pytest.raises(release_check.Refused, match=reason):
        release_check.check_version(version, CHANGELOG, CITATION, tags)


def test_version_of_the_citation_is_compared():
    with pytest.raises(release_check.Refused, match='CITATION.cff'):
        release_check.check_version('1.2.0', CHANGELOG, CITATION.replace('2', '1'), [])


@pytest.mark.parametrize('fault', ['', 'a file too many', 'a file too few'])
def test_contents_are_what_git_knows(fault, tmp_path, monkeypatch):
    tracked = ('README.md', 'mmuniformer/a.py', 'configs/b.py')
    monkeypatch.setattr(release_check, 'run', lambda *_: '\n'.join(tracked))
    names = [*tracked, 'PKG-INFO', 'mmuniformer.egg-info/SOURCES.txt']
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as tar:
        for name in names + ['notes.txt'] * (fault == 'a file too many'):
            tar.addfile(tarfile.TarInfo(f'a-1/{name}'))
    with zipfile.ZipFile(tmp_path / 'a.whl', 'w') as wheel:
        for name in ['mmuniformer/.mim/configs/b.py', 'mmuniformer/a.py'][fault.endswith('few') :]:
            wheel.writestr(name, '')
    if not fault:
        return release_check.check_contents(tmp_path / 'a.tar.gz', tmp_path / 'a.whl')
    reason = 'notes.txt' if fault.endswith('many') else 'lacks .*mmuniformer/.mim/configs/b.py'
    with pytest.raises(release_check.Refused, match=reason):
        release_check.check_contents(tmp_path / 'a.tar.gz', tmp_path / 'a.whl')


def test_this_version_can_be_released(repository):
    from mmuniformer.version import __version__

    texts = [(repository / name).read_text() for name in ('CHANGELOG.md', 'CITATION.cff')]
    release_check.check_version(__version__, *texts, [f'v{__version__}'])


def test_command_that_fails_is_quoted():
    with pytest.raises(release_check.Refused, match=r'ended with 3:\nno space'):
        release_check.run('sh', '-c', 'echo no space; exit 3')
    assert release_check.run('echo', 'a b') == 'a b\n'
