"""Other people's files: predictions in, entity sets out.

* `detection.open_predictions` recognises what lies at a path and returns a reader;
  `importing.import_predictions` writes what it reads as an entity set.
* One module per format that is read: `coco_results`, `coco_panoptic`, `mask_stack`,
  `entity_set_predictions`, `detectron2_panoptic`, `labelled_results` (detectron2's instances, and
  COCO results with their classes), `transformers_results`, `query_outputs`, `sam`, `paper_npz`.
* `duplicates` and `flattening` are the choices that a format leaves open; `missing_score` stands
  in for scores. `saved_outputs` and `torch_file` open what people save, and run nothing.
* `coco_panoptic_export` and `coco_instances_export` write an entity set for other tools.
"""
