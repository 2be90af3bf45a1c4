"""Kinetics-600: clips as of Kinetics-400."""

_base_ = 'kinetics400_16x8.py'

data_root = 'data/kinetics600/'
train = dict(data_root=data_root, ann_file='kinetics600_train_list_videos.txt')
val = dict(data_root=data_root, ann_file='kinetics600_val_list_videos.txt')
train_dataloader = dict(dataset=train)
val_dataloader = dict(dataset=val)
test_dataloader = dict(dataset=val)
del train, val
