"""A jointed figure in three dimensions: proportions, poses, projection.

Lengths are in standing heights. x points to the image's right, y down, z towards the viewer; the
figure's own left is at +x when it faces the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEYPOINTS = (
    'nose',
    'left_eye',
    'right_eye',
    'left_ear',
    'right_ear',
    'left_shoulder',
    'right_shoulder',
    'left_elbow',
    'right_elbow',
    'left_wrist',
    'right_wrist',
    'left_hip',
    'right_hip',
    'left_knee',
    'right_knee',
    'left_ankle',
    'right_ankle',
)
# The links of COCO's person category, as names: ``skeleton`` in its files counts them from 1.
LINKS = (
    ('left_ankle', 'left_knee'),
    ('left_knee', 'left_hip'),
    ('right_ankle', 'right_knee'),
    ('right_knee', 'right_hip'),
    ('left_hip', 'right_hip'),
    ('left_shoulder', 'left_hip'),
    ('right_shoulder', 'right_hip'),
    ('left_shoulder', 'right_shoulder'),
    ('left_shoulder', 'left_elbow'),
    ('right_shoulder', 'right_elbow'),
    ('left_elbow', 'left_wrist'),
    ('right_elbow', 'right_wrist'),
    ('left_eye', 'right_eye'),
    ('nose', 'left_eye'),
    ('nose', 'right_eye'),
    ('left_eye', 'left_ear'),
    ('right_eye', 'right_ear'),
    ('left_ear', 'left_shoulder'),
    ('right_ear', 'right_shoulder'),
)
SIDES = {'left': 1.0, 'right': -1.0}
HEAD_RADIUS = 0.125
TORSO, NECK, UPPER_ARM, FOREARM, THIGH, SHIN, FOOT = 0.26, 0.165, 0.15, 0.145, 0.19, 0.19, 0.06
SHOULDER_WIDTH, HIP_WIDTH = 0.12, 0.07
# On the head, in its own frame and in head radii.
FACE = {
    'nose': (0.0, 0.12, 0.99),
    'left_eye': (0.38, -0.14, 0.91),
    'right_eye': (-0.38, -0.14, 0.91),
    'left_ear': (0.99, 0.0, 0.0),
    'right_ear': (-0.99, 0.0, 0.0),
}


@dataclass
class LimbAngles:
    """Degrees away from hanging: sideways and forwards, of the upper and the lower half."""

    out: float
    forward: float
    lower_out: float
    lower_forward: float


def _direction(side: float, out: float, forward: float) -> np.ndarray:
    out, forward = np.deg2rad(out), np.deg2rad(forward)
    return np.array(
        [side * np.sin(out), np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward)]
    )


def _relaxed_arm(rng) -> LimbAngles:
    out = rng.uniform(10, 32)
    return LimbAngles(out, rng.uniform(-10, 15), out + rng.uniform(-18, 12), rng.uniform(0, 35))


def _raised_arm(rng) -> LimbAngles:
    out = rng.uniform(70, 145)
    return LimbAngles(out, rng.uniform(-10, 20), out + rng.uniform(-15, 60), rng.uniform(-10, 20))


def _hand_on_hip(rng) -> LimbAngles:
    return LimbAngles(rng.uniform(42, 56), -8, rng.uniform(-52, -34), 8)


def _standing_leg(rng, widest: float = 14) -> LimbAngles:
    out = rng.uniform(3, widest)
    return LimbAngles(out, rng.uniform(-5, 8), out + rng.uniform(-4, 3), rng.uniform(-8, 0))


def _bent_leg(rng) -> LimbAngles:
    return LimbAngles(rng.uniform(32, 55), 15, rng.uniform(-10, 12), -10)


def _stride(rng, forward: float) -> tuple[LimbAngles, LimbAngles]:
    """An arm and the leg of the same side, which swing against each other."""
    arm = LimbAngles(rng.uniform(8, 18), -forward, rng.uniform(4, 14), 25 - forward)
    leg = LimbAngles(4, forward, 4, forward - rng.uniform(5, 35))
    return arm, leg


def _sample_limbs(rng) -> tuple[dict[str, LimbAngles], dict[str, LimbAngles]]:
    """Angles of arms and legs per side, in one of a few manners."""
    manner = rng.choice(['stand', 'wave', 'cheer', 'hips', 'walk', 'crouch'])
    if manner == 'walk':
        swing = rng.uniform(18, 38) * rng.choice([-1, 1])
        pairs = {'left': _stride(rng, swing), 'right': _stride(rng, -swing)}
        return {s: p[0] for s, p in pairs.items()}, {s: p[1] for s, p in pairs.items()}
    raised = {
        'wave': [str(rng.choice(['left', 'right']))],
        'cheer': ['left', 'right'],
        'crouch': [s for s in SIDES if rng.random() < 0.4],
    }.get(manner, [])
    arms, legs = {}, {}
    for side in SIDES:
        if side in raised:
            arms[side] = _raised_arm(rng)
        elif manner == 'hips' and rng.random() < 0.75:
            arms[side] = _hand_on_hip(rng)
        else:
            arms[side] = _relaxed_arm(rng)
        if manner == 'crouch':
            legs[side] = _bent_leg(rng)
        else:
            legs[side] = _standing_leg(rng, 30 if manner == 'cheer' else 14)
    return arms, legs


def turn(yaw: float, roll: float) -> np.ndarray:
    """Rotation matrix: about the vertical by ``yaw``, then in the image by ``roll`` (degrees)."""
    yaw, roll = np.deg2rad(yaw), np.deg2rad(roll)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    in_image = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    return in_image @ about_y


@dataclass
class Skeleton:
    """Joints by name, (3,) each, with the origin between the hips, and the head's rotation."""

    joints: dict[str, np.ndarray]
    head_turn: np.ndarray


def sample_skeleton(rng: np.random.Generator) -> Skeleton:
    """Draw a figure's pose and the direction it faces; one in twelve shows its back."""
    arms, legs = _sample_limbs(rng)
    yaw = rng.uniform(-42, 42) + (180 if rng.random() < 0.08 else 0)
    body = turn(yaw, rng.normal(0, 6))
    head = turn(yaw + rng.uniform(-15, 15), rng.normal(0, 6))
    lean = np.deg2rad(rng.normal(0, 5))

    spine = np.array([np.sin(lean), -np.cos(lean), 0])
    joints = {'pelvis': np.zeros(3), 'neck': spine * TORSO}
    for side, sign in SIDES.items():
        shoulder = joints['neck'] + sign * SHOULDER_WIDTH * np.array([-spine[1], spine[0], 0])
        hip = np.array([sign * HIP_WIDTH, 0, 0])
        for root, names, lengths, angles in (
            (shoulder, ('shoulder', 'elbow', 'wrist'), (UPPER_ARM, FOREARM), arms[side]),
            (hip, ('hip', 'knee', 'ankle'), (THIGH, SHIN), legs[side]),
        ):
            upper = _direction(sign, angles.out, angles.forward)
            lower = _direction(sign, angles.lower_out, angles.lower_forward)
            middle = root + lengths[0] * upper
            ends = (root, middle, middle + lengths[1] * lower)
            joints.update({f'{side}_{n}': p for n, p in zip(names, ends, strict=True)})
        joints[f'{side}_toe'] = joints[f'{side}_ankle'] + FOOT * np.array([0.5 * sign, 0.5, 0.7])
    joints = {name: body @ point for name, point in joints.items()}
    joints['head'] = joints['neck'] + NECK * (0.5 * body[:, 1] + 0.5 * head[:, 1]) * -1
    for name, place in FACE.items():
        joints[name] = joints['head'] + HEAD_RADIUS * (head @ np.array(place))
    return Skeleton(joints, head)
