"""CLIP features of images, questions and answers."""
