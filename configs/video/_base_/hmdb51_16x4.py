"""HMDB51, split 1, as frames in OpenCV's order BGR, which the authors trained on."""

_base_ = 'ucf101_16x4.py'

dataset_type = 'mmuniformer.FrameDataset'
data_root = 'data/hmdb51/'
load = dict(type='mmuniformer.LoadFrames', channel_order='bgr')
train_pipeline, val_pipeline = _base_.train_pipeline, _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2], val_pipeline[2], test_pipeline[2] = load, load, load

videos = dict(
    _delete_=True, type=dataset_type, data_root=data_root, data_prefix=dict(img='rawframes')
)
train = dict(ann_file='hmdb51_train_split_1_rawframes.txt', pipeline=train_pipeline)
val = dict(ann_file='hmdb51_val_split_1_rawframes.txt', test_mode=True)
train_dataloader = dict(dataset=dict(videos, **train))
val_dataloader = dict(dataset=dict(videos, pipeline=val_pipeline, **val))
test_dataloader = dict(dataset=dict(videos, pipeline=test_pipeline, **val))
del load, videos, train, val
