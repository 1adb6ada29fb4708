"""What schemathesis cannot know by itself: a frame is bytes."""

import schemathesis

schemathesis.serializer.alias("application/vnd.beeacon.frame", "application/octet-stream")
