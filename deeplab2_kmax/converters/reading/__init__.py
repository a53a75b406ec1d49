"""Pictures and labels as data sets hold them, read and checked.

Start with `labelled_images`: one picture with its labels, from whichever source. Records are made of them in
`deeplab2_kmax.converters.writing`.
"""
