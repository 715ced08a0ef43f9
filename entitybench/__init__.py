"""entitybench: the benchmark toolkit for class-agnostic entity segmentation."""
