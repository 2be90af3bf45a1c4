"""Something-Something V2: as V1, with other names of files."""

_base_ = 'sthv1_u16.py'

data_root = 'data/sthv2/'
videos = dict(data_root=data_root, filename_tmpl='img_{:05}.jpg')
val = dict(videos, ann_file='sthv2_val_list_rawframes.txt')
train_dataloader = dict(dataset=dict(videos, ann_file='sthv2_train_list_rawframes.txt'))
val_dataloader = dict(dataset=val)
test_dataloader = dict(dataset=val)
del videos, val
