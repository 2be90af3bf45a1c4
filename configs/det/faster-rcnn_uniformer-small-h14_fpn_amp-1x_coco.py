_base_ = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco.py'

# Boxes alone: annotations need no masks.
train_pipeline = _base_.train_pipeline
train_pipeline[1]['with_mask'] = False
test_pipeline = _base_.test_pipeline
test_pipeline[2]['with_mask'] = False
model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
