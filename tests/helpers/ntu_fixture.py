"""Writes NTU RGB+D's own files of a rendered person: pictures, skeletons, masked depth, lists."""

import dataclasses

import av
import cv2
import numpy as np

from psrjax.ops import pose
from psrjax.synthetic import clip_rendering, dataset
from psrjax.vision import body, raster

SIZE = (108, 192)  # a tenth of a Kinect's picture
DEPTH_SIZE = (106, 128)  # a quarter of a Kinect's
FRAMES = 8
RATE = 30.0
DEPTH_FOCAL = 91.0
FOCAL = 106.0  # the usual Kinect's is 108.1 at this size
SHIFT = np.array([0.055, 0.003, 0.0])  # of the colour from the depth camera, metres
MISSING = "S001C002P001R001A003"


def scene(person, action, seed=5):
    """Renders one action: {"joints", "vertices", "cameras", "frames", "faces", "metres"}.

    The last four are by view.
    """
    config = dataset.make_config({"frames": FRAMES, "size": SIZE, "seed": seed, "fps": RATE})
    specs = dataset.clip_specs(config)["train"]
    joints = dataset.joints_of(
        config, next(s for s in specs if s.person == person and s.action == action)
    )
    model = body.template()
    made = {"joints": joints, "vertices": body.pose(model, joints), "cameras": {}}
    made |= {"frames": {}, "faces": {}, "metres": {}}
    for number, (view, camera) in enumerate(clip_rendering.rig(0, seed, 3, SIZE).items()):
        matrix = camera.matrix.copy()
        matrix[[0, 1], [0, 1]] = FOCAL
        camera = made["cameras"][view] = dataclasses.replace(camera, matrix=matrix)
        seen = [raster.render(now, model.faces, camera) for now in made["vertices"]]
        made["faces"][view] = np.stack([picture.face for picture in seen])
        made["metres"][view] = np.stack([picture.depth for picture in seen])
        made["frames"][view] = _colored(made["faces"][view], model, number)
    return made


def _colored(faces, model, number):
    """A body in the colours of its parts before a wall of soft blobs."""
    colours = np.random.default_rng(7).integers(120, 256, (25, 3), np.uint8)
    blobs = np.random.default_rng(number).integers(0, 110, (9, 16, 3), np.uint8)
    wall = cv2.resize(blobs, SIZE[::-1])
    return np.where(faces[..., None] >= 0, colours[model.face_part[faces]], wall)


def write_clip(root, made, stem_of, *, mirrored, extra=()):
    """Writes one action as three cameras' files, as in a mirror if `mirrored`."""
    for number, (view, camera) in enumerate(made["cameras"].items(), 1):
        stem = stem_of(number)
        frames = made["frames"][view]
        frames = frames[:, :, ::-1] if mirrored else frames
        write_avi(root / "nturgb+d_rgb" / f"{stem}_rgb.avi", frames)
        seen = made["joints"] @ camera.rotation.T + camera.translation - SHIFT  # depth axes
        points = pose.convert_points(seen, "ntu25")
        text = skeleton_text(
            points, camera, mirrored=mirrored, options=extra if number == 1 else ()
        )
        path = root / "nturgb+d_skeletons" / f"{stem}.skeleton"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_avi(path, frames):
    """Writes H.264 with B-frames into AVI, as NTU's: its time stamps are out of order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("libx264", rate=int(RATE))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.options = {"crf": "4", "bf": "2", "b_adapt": "0"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def skeleton_text(points, camera, *, mirrored, options=()):
    """The skeleton file of points (t, 25, 3) in the depth camera's axes (x right, y down)."""
    lines = [str(len(points))]
    for time, joints in enumerate(points):
        bodies = [] if ("empty", time) in options else [(72057594037931101, joints)]
        if ("ghost", time) in options:  # a chair: wide, low and still
            chair = np.stack([np.linspace(1.0, 1.9, 25), np.full(25, 0.6), np.full(25, 3.0)], -1)
            bodies.insert(0, (72057594037931999, chair))
        lines.append(str(len(bodies)))
        for identity, body_joints in bodies:
            lines.append(f"{identity} 0 1 1 1 1 0 0.02764709 0.05745083 2")
            lines.append("25")
            for joint in body_joints:
                lines.append(_joint(joint, camera, mirrored, time))
    return "\n".join(lines) + "\n"


def _joint(joint, camera, mirrored, time):
    column, row = (camera.matrix[:2] @ ((joint + SHIFT) / (joint + SHIFT)[2]))[:2]
    across, down = DEPTH_FOCAL * joint[:2] / joint[2] + (np.array(DEPTH_SIZE[::-1]) - 1) / 2
    x = joint[0]
    if mirrored:
        x, column, across = -x, SIZE[1] - 1 - column, DEPTH_SIZE[1] - 1 - across
    colour = 10 * (np.array([column, row]) + 0.5) - 0.5  # pixels of 1920 x 1080
    depth = 4 * (np.array([across, down]) + 0.5) - 0.5  # pixels of 512 x 424
    numbers = [x, -joint[1], joint[2], *depth, *colour, 0.1, 0.2, 0.3, 0.4]
    return " ".join(f"{number:.7g}" for number in numbers) + " 2"


def write_depth(root, made, stem_of, *, mirrored, first=1):
    """Writes masked depth pictures: millimetres, 0 off the person."""
    for number, camera in enumerate(made["cameras"].values(), 1):
        folder = root / "nturgb+d_depth_masked" / stem_of(number)
        folder.mkdir(parents=True)
        seen = made["vertices"] @ camera.rotation.T + camera.translation - SHIFT
        matrix = np.diag([DEPTH_FOCAL, DEPTH_FOCAL, 1.0])
        matrix[:2, 2] = (np.array(DEPTH_SIZE[::-1]) - 1) / 2
        own = dataclasses.replace(
            camera, matrix=matrix, rotation=np.eye(3), translation=np.zeros(3), size=DEPTH_SIZE
        )
        for time, now in enumerate(seen):
            metres = raster.render(now, body.template().faces, own).depth
            picture = np.where(np.isfinite(metres), 1000 * metres, 0).astype(np.uint16)
            picture = picture[:, ::-1] if mirrored else picture
            name = f"MDepth-{time + first:08d}.png"
            cv2.imwrite(str(folder / name), np.ascontiguousarray(picture))


def write(root):
    """Writes two people, two actions, three cameras; returns {clip: truth}."""
    truth = {}
    for person, split_person in ((0, 1), (1, 3)):  # P001 trains, P003 tests
        actions = sorted({
            s.action for s in dataset.clip_specs(dataset.make_config({"frames": FRAMES}))["train"]
            if s.person == person
        })[:2]  # fmt: skip
        for number, action in enumerate(actions, 1):
            made = scene(person, action)
            clip = f"S001P{split_person:03d}R001A{number:03d}"

            def stem(camera, clip=clip):
                return f"{clip[:4]}C{camera:03d}{clip[4:]}"

            mirrored = person == 1
            extra = (("empty", 3), ("ghost", 1), ("ghost", 2)) if number == 1 else ()
            write_clip(root, made, stem, mirrored=mirrored, extra=extra)
            if number == 2:
                write_depth(root, made, stem, mirrored=mirrored, first=person)
            truth[clip] = made | {"mirrored": mirrored}
    stray = root / "nturgb+d_rgb"
    for name in (f"{MISSING}_rgb.avi", "S001C001P001R001A055_rgb.avi"):
        (stray / name).write_bytes((stray / "S001C001P001R001A001_rgb.avi").read_bytes())
    listed = "Missing skeletons\n\nnames:\n" + MISSING + "\n"
    (root / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(listed)
    return truth
