"""The model tables of the READMEs against the metafiles they are made from."""

from __future__ import annotations

from pathlib import Path

import model_tables
import pytest
import yaml

from mmuniformer.analysis.metafile import load_models
from mmuniformer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

METAFILE = """
Models:
  - Name: mask-rcnn_a_coco
    Config: configs/det/mask-rcnn_a_coco.py
    Metadata: {Epochs: 12, Parameters (M): 41.2, FLOPs (G): 269, Provenance: published}
    Results:
      - {Task: Object Detection, Dataset: COCO, Metrics: {box AP: 45.6}}
      - {Task: Instance Segmentation, Dataset: COCO, Metrics: {mask AP: 41.6}}
  - Name: mask-rcnn_b_coco
    Config: configs/det/toy/mask-rcnn_b_coco.py
    Metadata: {Epochs: 3, Parameters (M): 0.5, Provenance: not trained}
"""
SEG_METAFILE = """
Models:
  - Name: fpn_a_ade20k
    Config: configs/seg/fpn_a_ade20k.py
    Metadata: {Iterations: 80000, Provenance: published}
    Results:
      - {Task: Semantic Segmentation, Dataset: ADE20K, Metrics: {mIoU: 46.6}}
    Weights: https://a.org/f.pth
"""
DET_TABLE = """\
| Model | Epochs | Params (M) | FLOPs (G) | box AP | mask AP | Provenance |
| --- | --- | --- | --- | --- | --- | --- |
| [mask-rcnn_a_coco](mask-rcnn_a_coco.py) | 12 | 41.20 | 269 | 45.6 | 41.6 | published |
| [mask-rcnn_b_coco](toy/mask-rcnn_b_coco.py) | 3 | 0.50 | - | - | - | not trained |"""
SEG_TABLE = """\
| Model | Iterations | mIoU | Provenance | Weights |
| --- | --- | --- | --- | --- |
| [fpn_a_ade20k](fpn_a_ade20k.py) | 80000 | 46.6 | published | [file](https://a.org/f.pth) |"""
BEGIN, END = model_tables.TASK_MARKERS
PAGE = f'# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n'
FRONT = '# Front\n\n{}\nold\n{}\n'.format(*model_tables.HEADLINE_MARKERS)


@pytest.fixture
def checkout(tmp_path):
    for task, metafile in (('det', METAFILE), ('seg', SEG_METAFILE)):
        folder = tmp_path / 'configs' / task
        folder.mkdir(parents=True)
        (folder / 'metafile.yml').write_text(metafile)
        (folder / 'README.md').write_text(PAGE)
    (tmp_path / 'README.md').write_text('# Front\n')
    return tmp_path


@pytest.mark.parametrize(('task', 'table'), [('det', DET_TABLE), ('seg', SEG_TABLE)])
def test_table_stands_between_the_markers_and_nothing_else_changes(checkout, task, table):
    assert model_tables.main([], checkout) == 0
    page = (checkout / 'configs' / task / 'README.md').read_text()
    assert page == f'# Title\n\nbefore\n\n{BEGIN}\n\n{table}\n\n{END}\n\nafter\n'
    assert (checkout / 'README.md').read_text() == '# Front\n'


def test_front_page_holds_the_headline_models(checkout, monkeypatch):
    headlines = {'fpn_a_ade20k': 'FPN', 'mask-rcnn_a_coco': 'Mask R-CNN'}
    monkeypatch.setattr(model_tables, 'HEADLINES', headlines)
    (checkout / 'README.md').write_text(FRONT)
    assert model_tables.main([], checkout) == 0
    lines = (checkout / 'README.md').read_text().splitlines()
    assert [line for line in lines if line.startswith('| [')] == [
        '| [FPN](configs/seg/fpn_a_ade20k.py) | ADE20K | - | - | 46.6 mIoU |',
        '| [Mask R-CNN](configs/det/mask-rcnn_a_coco.py) | COCO | 41.20 | 269 '
        '| 45.6 box AP, 41.6 mask AP |',
    ]


def test_every_headline_model_has_a_published_result():
    rows = {row['Name']: row for metafile in metafiles() for row in load_models(metafile)}
    for name in model_tables.HEADLINES:
        assert rows[name]['Metadata']['Provenance'] == 'published'
        assert rows[name]['Results']


def test_check_names_old_tables_and_writes_nothing(checkout, capsys):
    assert model_tables.main(['--check'], checkout) == 1
    assert capsys.readouterr().out.count('is out of date') == 2
    assert (checkout / 'configs' / 'det' / 'README.md').read_text() == PAGE

    model_tables.main([], checkout)
    assert model_tables.main(['--check'], checkout) == 0

    metafile = checkout / 'configs' / 'det' / 'metafile.yml'
    metafile.write_text(metafile.read_text().replace('45.6', '45.7'))
    capsys.readouterr()
    assert model_tables.main(['--check'], checkout) == 1
    assert 'configs/seg' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('Provenance: published', 'Provenance: guessed', "'guessed'; choose one of published"),
        ('    Config: configs/det/mask-rcnn_a_coco.py\n', '', 'mask-rcnn_a_coco lacks Config'),
        ('Models:', 'Models: [', 'not valid YAML'),
        ('Models:', 'Modells:', 'no "Models" list'),
    ],
)
def test_bad_metafile_is_named_with_the_fix(checkout, old, new, message):
    metafile = checkout / 'configs' / 'det' / 'metafile.yml'
    metafile.write_text(metafile.read_text().replace(old, new))
    with pytest.raises(UserError, match='metafile.yml') as error:
        model_tables.pages(checkout)
    assert message in str(error.value)


@pytest.mark.parametrize('page', ['no markers', f'{END} {BEGIN}', PAGE + PAGE, BEGIN])
def test_page_without_one_pair_of_markers_is_refused(checkout, page):
    (checkout / 'configs' / 'det' / 'README.md').write_text(page)
    with pytest.raises(UserError, match='once each'):
        model_tables.pages(checkout)


def test_missing_pages_are_named(checkout):
    (checkout / 'configs' / 'det' / 'README.md').unlink()
    with pytest.raises(UserError, match=r'README\.md'):
        model_tables.pages(checkout)


def test_tables_of_this_checkout_are_up_to_date():
    assert model_tables.main(['--check']) == 0, 'run `python tools/dev/model_tables.py`'


def metafiles():
    return sorted(ROOT.glob('configs/*/metafile.yml'))


@pytest.mark.parametrize('metafile', metafiles(), ids=lambda path: path.parent.name)
def test_every_config_has_its_rows_named_after_it(metafile):
    models = load_models(metafile)
    configs = {
        path.relative_to(ROOT).as_posix()
        for path in metafile.parent.rglob('*.py')
        if '_base_' not in path.parts
    }
    assert {model['Config'] for model in models} == configs
    names = [model['Name'] for model in models]
    assert len(names) == len(set(names))
    for model in models:
        assert model['Name'].startswith(Path(model['Config']).stem)
        assert model['Name'] == model['Name'].lower()


def test_index_imports_every_metafile_and_knows_every_collection():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [path.relative_to(ROOT).as_posix() for path in metafiles()]
    collections = {collection['Name'] for collection in index['Collections']}
    for metafile in metafiles():
        assert {model['In Collection'] for model in load_models(metafile)} <= collections
        for model in load_models(metafile):
            light = '-light-' in model['Name']
            assert (model['In Collection'] == 'UniFormer-Light') == light, model['Name']


@pytest.mark.frameworks
def test_mim_search_answers_from_the_index():
    search = pytest.importorskip('mim.commands.search')
    table = search.convert2df(search.load(str(ROOT / 'model-index.yml')))
    light = search.filter_by_models(table, ['UniFormer-Light'])
    assert 'mask-rcnn_uniformer-light-xs_fpn_1x_coco' in light.index
    row = search.filter_by_configs(table, ['mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco']).iloc[0]
    assert row['config'] == 'configs/det/mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco.py'
    assert row['model'] == 'uniformer'
    assert row['coco/box_ap'] == 45.6
    assert row['paper'] == 'https://arxiv.org/abs/2201.09450'


def test_flops_that_are_not_reproduced_carry_a_star():
    model = dict(
        Name='a', Config='configs/seg/a.py',
        Metadata={'FLOPs (G)': 172, 'FLOPs Reproduced': False, 'Provenance': 'published'},
    )  # fmt: skip
    table = model_tables.task_table([model], Path('configs/seg'))
    assert r'| 172 \* |' in table
    assert table.endswith(model_tables.NOT_REPRODUCED)
    model['Metadata']['FLOPs Reproduced'] = True
    plain = model_tables.task_table([model], Path('configs/seg'))
    assert '| 172 |' in plain
    assert model_tables.NOT_REPRODUCED not in plain
