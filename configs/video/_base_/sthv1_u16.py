"""Something-Something V1: one frame of each of 16 segments; tests take 3 crops.

Frames are JPEG files, and stay in OpenCV's order BGR: the authors' weights are of BGR frames.
"""

_base_ = 'kinetics400_16x4.py'

dataset_type = 'mmuniformer.FrameDataset'
data_root = 'data/sthv1/'
clip = dict(type='mmuniformer.SampleSegments', clip_len=16)
load = dict(type='mmuniformer.LoadFrames', channel_order='bgr')

train_pipeline, val_pipeline = _base_.train_pipeline, _base_.val_pipeline
# Not mirrored: left and right tell classes.
train_pipeline[3]['transforms'] = [
    each for each in train_pipeline[3]['transforms'] if each['type'] != 'Flip'
]
train_pipeline[1:3] = [clip, load]
val_pipeline[1:3] = [dict(clip, test_mode=True), load]
test_pipeline = [dict(each) for each in val_pipeline]
test_pipeline[4]['crops'] = 3

videos = dict(
    _delete_=True,
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img='rawframes'),
    filename_tmpl='{:05}.jpg',
)
train = dict(ann_file='sthv1_train_list_rawframes.txt', pipeline=train_pipeline)
val = dict(ann_file='sthv1_val_list_rawframes.txt', test_mode=True)
train_dataloader = dict(dataset=dict(videos, **train))
val_dataloader = dict(dataset=dict(videos, pipeline=val_pipeline, **val))
test_dataloader = dict(dataset=dict(videos, pipeline=test_pipeline, **val))
del clip, load, videos, train, val
