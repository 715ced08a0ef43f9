"""Other people's files: predictions in, entity sets out.

* `detection.open_predictions` recognises what lies at a path and returns a reader.
* One module per format that is read: `coco_results`, `coco_panoptic`, `mask_stack`,
  `entity_set_predictions`.
* `coco_panoptic_export` and `coco_instances_export` write an entity set for other tools.
"""
