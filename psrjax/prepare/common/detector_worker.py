"""The worker process of `prepare.common.detector`: frames in, landmarks and a mask out.

Runs as a script in MediaPipe's own environment, so it must import neither psrjax nor anything else
that is not installed there.
"""

import os
import struct
import sys

import numpy as np

HEADER = struct.Struct("<II")  # height and width of a frame; 0, 0 starts another clip
FOUND = struct.Struct("<B")  # 1: 33 landmarks and a mask follow; 0: nobody
READY = b"psrjax-pose-1"  # the worker's first message


def serve(incoming, outgoing) -> None:
    """Answers frame after frame until the pipe closes.

    A frame is `HEADER` and (h, w, 3) uint8 RGB; the answer is `FOUND` and, if 1, float32 (33, 4)
    of x, y in pixels (pixel centres at whole numbers), visibility and presence, then the mask
    (h, w) uint8.
    """
    pose = _pose()
    outgoing.write(READY)
    outgoing.flush()
    while len(header := incoming.read(HEADER.size)) == HEADER.size:
        height, width = HEADER.unpack(header)
        if not height:
            pose.close()
            pose = _pose()
            continue
        data = incoming.read(height * width * 3)
        if len(data) < height * width * 3:
            return
        outgoing.write(_answer(pose, np.frombuffer(data, np.uint8).reshape(height, width, 3)))
        outgoing.flush()


def _pose():
    """Creates the tracker with the `full` model, the only one in the wheel.

    Its smoothing is off: it is causal, so that joints lag behind fast limbs.
    """
    import mediapipe

    return mediapipe.solutions.pose.Pose(
        static_image_mode=False,
        model_complexity=1,
        smooth_landmarks=False,
        enable_segmentation=True,
        smooth_segmentation=True,
    )


def _answer(pose, image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    result = pose.process(image)
    if result.pose_landmarks is None or result.segmentation_mask is None:
        return FOUND.pack(0)
    landmarks = np.array(
        [
            (mark.x * width - 0.5, mark.y * height - 0.5, mark.visibility, mark.presence)
            for mark in result.pose_landmarks.landmark
        ],
        np.float32,
    )
    mask = np.round(255 * np.clip(result.segmentation_mask, 0, 1)).astype(np.uint8)
    return FOUND.pack(1) + landmarks.tobytes() + np.ascontiguousarray(mask).tobytes()


def main() -> None:
    """Serves standard input and output; output of libraries goes to standard error."""
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, outgoing)


if __name__ == "__main__":
    main()
