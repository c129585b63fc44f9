"""Images, fields and series in files and as objects of other libraries; files that appear whole or not at all."""
