"""The one door to the disk: durable writes, and JSON that is read strictly."""
