"""What a policy sees: CLIP features of images, questions and answers, and their neighbours."""
