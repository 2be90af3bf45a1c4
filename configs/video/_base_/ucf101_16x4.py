"""UCF101, split 1: a milder RandAugment; tests take 5 clips of 3 crops."""

_base_ = 'kinetics400_16x4.py'

data_root = 'data/ucf101/'
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[3]['transforms'][0]['policy'] = 'rand-m5-n2-mstd0.25'
test_pipeline[1]['num_clips'] = 5
test_pipeline[4]['crops'] = 3

videos = dict(data_root=data_root, data_prefix=dict(video='videos'))
train = dict(ann_file='ucf101_train_split_1_videos.txt', pipeline=train_pipeline)
val = dict(ann_file='ucf101_val_split_1_videos.txt')
train_dataloader = dict(batch_size=16, dataset=dict(videos, **train))
val_dataloader = dict(dataset=dict(videos, **val))
test_dataloader = dict(dataset=dict(videos, pipeline=test_pipeline, **val))
del videos, train, val
