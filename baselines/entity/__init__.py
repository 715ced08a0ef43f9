"""The reference model of "Open World Entity Segmentation".

One file per concept of the paper: `backbone`, `pyramid`, `head` (entityness, centerness,
localisation, kernel), `assignment` (which location answers for which entity), `mask_branch`,
`mask_head` with the global kernel bank, `overlap` suppression, `losses`, `inference`, and
`model`, which puts them together.
"""
