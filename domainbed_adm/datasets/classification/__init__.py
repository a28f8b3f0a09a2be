"""Classification: one source environment, ``train``, and official test sets held out, under their authors' names.

``cifar`` and ``fine_grained`` read official files, ``digits`` makes the sets that need none; all three without torch.
``sets`` and ``image_files`` are the datasets of them.
"""
