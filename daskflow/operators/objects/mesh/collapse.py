r"""Edges of a surface collapsed to points, cheapest first, compiled when it is first used on a machine.

    half-edge h goes from corner h of its triangle to the next corner, and `other[h]` comes back in the next triangle

              w                       w
            /   \                    |
           u --> v     collapses      v'       v' is where the quadrics of u and v are least together
            \   /                    |
              x                       x

A quadric is the sum of squared distances to the planes of all triangles that were merged, times their areas (Garland &
Heckbert, Surface Simplification Using Quadric Error Metrics, 1997), and a little of the squared distances to their
corners, so that there is one least place also where all is flat. It only grows: edges wait in buckets of the cost that
they had when they were last looked at, an octave each, and are looked at again when the turn of their bucket comes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daskflow.operators._compiled import compiled, kept

Array = npt.NDArray[Any]

_BUCKETS = 16  # more are more sweeps over memory
_TILE = 1 << 16  # half-edges that are looked at before the next ones: as much as is in the cache of a core
_STIFFNESS = 1e-6  # of the squared distances to corners
_TURN = 0.04  # square of the cosine by which a triangle may turn
_SHARPEST = 0.1  # square of the sum of normals over the sum of their lengths, at least
_THIN = 1e-4  # square of the height of a triangle over the longer of the edges that move
_SMALL = 32
_ZERO, _ONE, _TWO, _THREE = np.arange(4, dtype=np.uint32)
_GONE = -1
_NONE = -1
_OUT = -2  # in no bucket


class _Mesh(NamedTuple):
    points: Array  # (n, 3)
    corners: Array  # the vertex of each half-edge
    other: Array
    locked: Array  # vertices that stay
    quadrics: Array  # (n, 10)


class _Queue(NamedTuple):
    first: Array
    last: Array
    after: Array  # the half-edge that comes after each


@compiled
def _next(h: int) -> int:
    n: Any = np.uint32(h)  # divided faster than signed numbers, by a sixth of all time
    following: int = n - _TWO if n % _THREE == _TWO else n + _ONE
    return following


@compiled
def _around(other: Array, h: int) -> int:
    """Return the half-edge from the same vertex that comes after one."""
    n = np.uint32(h)
    turned: int = other[n + _TWO if n % _THREE == _ZERO else n - _ONE]
    return turned


@compiled
def _opposites(corners: Array, locked: Array) -> Array:
    """Return the other half of each edge, and lock vertices of edges that are not of two triangles."""
    first = np.full(len(locked), _NONE, np.int32)
    after = np.empty(len(corners), np.int32)
    other = np.full(len(corners), _NONE, np.int32)
    for h in range(len(corners)):
        u, v = corners[h], corners[_next(h)]
        low, high = min(u, v), max(u, v)
        g = first[low]
        while g != _NONE and corners[g] != high and corners[_next(g)] != high:
            g = after[g]
        if g == _NONE:
            after[h] = first[low]
            first[low] = h
        elif other[g] == _NONE and corners[g] == v:
            other[g], other[h] = h, g
        else:
            locked[u] = locked[v] = True
    for h in range(len(corners)):
        if other[h] == _NONE:
            locked[corners[h]] = locked[corners[_next(h)]] = True
    return other


@compiled
def _lock_touching(corners: Array, other: Array, locked: Array) -> None:
    """Lock the vertices where sheets touch: not all triangles are around them one after another."""
    degrees = np.zeros(len(locked), np.int32)
    some = np.zeros(len(locked), np.int32)
    for h in range(len(corners)):
        degrees[corners[h]] += 1
        some[corners[h]] = h
    for v in range(len(locked)):
        if degrees[v] and not locked[v]:
            g, count = _around(other, some[v]), 1
            while g != some[v]:
                g, count = _around(other, g), count + 1
            locked[v] = count != degrees[v]


@compiled
def _lock_small(corners: Array, other: Array, locked: Array) -> None:
    """Lock the vertices of small connected pieces."""
    seen = np.zeros(len(corners) // 3, np.bool_)
    piece = np.empty(len(seen), np.int32)
    for start in range(len(seen)):
        if seen[start]:
            continue
        seen[start] = True
        piece[0] = start
        done, size = 0, 1
        while done < size:
            for h in range(3 * piece[done], 3 * piece[done] + 3):
                beyond = other[h] // 3
                if other[h] != _NONE and not seen[beyond]:
                    seen[beyond] = True
                    piece[size] = beyond
                    size += 1
            done += 1
        if size <= _SMALL:
            for one in piece[:size]:
                for h in range(3 * one, 3 * one + 3):
                    locked[corners[h]] = True


@compiled
def _cross(points: Array, a: int, b: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return the normal of a triangle of two vertices and a place, twice its area long."""
    ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
    ux, uy, uz = points[b, 0] - ax, points[b, 1] - ay, points[b, 2] - az
    vx, vy, vz = x - ax, y - ay, z - az
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@compiled
def _length(points: Array, a: int, x: float, y: float, z: float) -> float:
    """Return the squared distance from a vertex to a place."""
    length: float = (points[a, 0] - x) ** 2 + (points[a, 1] - y) ** 2 + (points[a, 2] - z) ** 2
    return length


@compiled
def _quadrics(points: Array, corners: Array, size: Array) -> Array:
    """Return the quadric of each vertex: xx, xy, xz, yy, yz, zz, x, y, z, 1.

    Where a surface is sharp, normals cancel out: its quadrics count more, as the area of a tip is small.
    """
    quadrics = np.zeros((len(points), 10))
    around = np.zeros((len(points), 4))  # the normals of the triangles added up, and their lengths
    product, least = size[0] * size[1] * size[2], min(size[0], size[1], size[2])
    for h in range(0, len(corners), 3):
        px, py, pz = points[corners[h], 0], points[corners[h], 1], points[corners[h], 2]
        x, y, z = _cross(points, corners[h + 1], corners[h + 2], px, py, pz)
        double = product * math.sqrt((x / size[0]) ** 2 + (y / size[1]) ** 2 + (z / size[2]) ** 2)
        if double == 0:
            continue
        scale, area = product / double, double / 2
        cx, cy, cz = x, y, z
        x, y, z = x * scale, y * scale, z * scale
        away = -(x * px + y * py + z * pz)
        stiff = _STIFFNESS * area * least * least
        for v in corners[h : h + 3]:
            px, py, pz = points[v, 0], points[v, 1], points[v, 2]
            around[v, 0] += cx
            around[v, 1] += cy
            around[v, 2] += cz
            around[v, 3] += math.sqrt(cx * cx + cy * cy + cz * cz)
            own = quadrics[v]
            own[0] += area * x * x + stiff
            own[1] += area * x * y
            own[2] += area * x * z
            own[3] += area * y * y + stiff
            own[4] += area * y * z
            own[5] += area * z * z + stiff
            own[6] += area * x * away - stiff * px
            own[7] += area * y * away - stiff * py
            own[8] += area * z * away - stiff * pz
            own[9] += area * away * away + stiff * (px * px + py * py + pz * pz)
    for v in range(len(points)):
        x, y, z, whole = around[v, 0], around[v, 1], around[v, 2], around[v, 3] ** 2
        if whole > 0:
            quadrics[v] *= (whole / max(x * x + y * y + z * z, _SHARPEST * whole)) ** 4
    return quadrics


@compiled
def _best(points: Array, quadrics: Array, u: int, v: int) -> tuple[float, float, float, float]:
    """Return the place where two quadrics are least, and the cost there: not a number where they are nothing.

    It is found as a way from the middle of the edge, so that what is lost by rounding is a share of this way.
    """
    p, q = quadrics[u], quadrics[v]
    xx, xy, xz, yy, yz, zz = p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3], p[4] + q[4], p[5] + q[5]
    x, y, z = p[6] + q[6], p[7] + q[7], p[8] + q[8]
    a, b, c = (points[u, 0] + points[v, 0]) / 2, (points[u, 1] + points[v, 1]) / 2, (points[u, 2] + points[v, 2]) / 2
    dx, dy, dz = xx * a + xy * b + xz * c + x, xy * a + yy * b + yz * c + y, xz * a + yz * b + zz * c + z
    ixx, ixy, ixz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    iyy, iyz, izz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    scale = 1 / (xx * ixx + xy * ixy + xz * ixz)
    cost = a * (dx + x) + b * (dy + y) + c * (dz + z) + p[9] + q[9]
    ex, ey, ez = (
        (ixx * dx + ixy * dy + ixz * dz) * scale,
        (ixy * dx + iyy * dy + iyz * dz) * scale,
        (ixz * dx + iyz * dy + izz * dz) * scale,
    )
    return a - ex, b - ey, c - ez, cost - (dx * ex + dy * ey + dz * ez)


@compiled
def _bucket(cost: float, limit: float) -> int:
    if not cost < limit:
        return _BUCKETS
    if cost <= limit * 2.0**-_BUCKETS:
        return 0
    return _BUCKETS - math.frexp(limit / cost)[1]


@compiled
def _put(queue: _Queue, h: int, bucket: int) -> None:
    queue.after[h] = _NONE
    if queue.first[bucket] == _NONE:
        queue.first[bucket] = h
    else:
        queue.after[queue.last[bucket]] = h
    queue.last[bucket] = h


@compiled
def _queue_tile(mesh: _Mesh, queue: _Queue, start: int, limit: float) -> None:
    for h in range(start, min(start + _TILE, len(mesh.corners))):
        u, v = mesh.corners[h], mesh.corners[_next(h)]
        if u != _GONE and h < mesh.other[h] and not mesh.locked[u] and not mesh.locked[v]:
            bucket = _bucket(_best(mesh.points, mesh.quadrics, u, v)[3], limit)
            if bucket < _BUCKETS:
                _put(queue, h, bucket)


@compiled
def _collapse_queued(mesh: _Mesh, queue: _Queue, limit: float, marks: Array, mark: int) -> int:
    """Collapse all edges in a queue, and return the last number that was marked with."""
    points, corners = mesh.points, mesh.corners
    for bucket in range(_BUCKETS):
        while queue.first[bucket] != _NONE:
            h = queue.first[bucket]
            queue.first[bucket] = queue.after[h]
            queue.after[h] = _OUT
            if corners[h] == _GONE or queue.after[mesh.other[h]] != _OUT:
                continue
            u, v = corners[h], corners[mesh.other[h]]
            x, y, z, cost = _best(points, mesh.quadrics, u, v)
            now = _bucket(cost, limit)
            if now <= bucket:
                mark += 1
                if _may(mesh, h, (x, y, z), marks, mark):
                    points[v, 0], points[v, 1], points[v, 2] = x, y, z
                    _merge(mesh, queue, h, bucket)
                    continue
                now = bucket + 1
            if now < _BUCKETS:
                _put(queue, h, now)
    return mark


@compiled
def _turned(mesh: _Mesh, h: int, x: float, y: float, z: float) -> bool:
    """Return whether a triangle at the start of a half-edge turns over or gets too thin when that goes to a place."""
    points, corners = mesh.points, mesh.corners
    u, skipped = corners[h], corners[_next(h)]
    g = h
    while True:
        a = corners[_next(g)]
        b = corners[_next(_next(g))]
        if a != skipped and b != skipped:
            px, py, pz = _cross(points, a, b, points[u, 0], points[u, 1], points[u, 2])
            qx, qy, qz = _cross(points, a, b, x, y, z)
            along = px * qx + py * qy + pz * qz
            lengths = (px * px + py * py + pz * pz) * (qx * qx + qy * qy + qz * qz)
            if along <= 0 or along * along < _TURN * lengths:
                return True
            longest = max(_length(points, a, x, y, z), _length(points, b, x, y, z))
            if qx * qx + qy * qy + qz * qz < _THIN * longest * longest:
                return True
        g = _around(mesh.other, g)
        if g == h:
            return False


@compiled
def _pointed(other: Array, h: int) -> bool:
    """Return whether three triangles are all that is around the start of a half-edge."""
    g = h
    for _ in range(3):
        g = _around(other, g)
        if g == _NONE:
            return False
    return bool(g == h)


@compiled
def _simple(mesh: _Mesh, h: int, marks: Array, mark: int) -> bool:
    """Return whether a surface stays one where an edge collapses: its ends have no third neighbour in common."""
    t = mesh.other[h]
    if _pointed(mesh.other, _next(_next(h))) or _pointed(mesh.other, _next(_next(t))):
        return False
    g, common = t, 0
    while True:
        marks[mesh.corners[_next(g)]] = mark
        g = _around(mesh.other, g)
        if g == t:
            break
    g = h
    while True:
        common += marks[mesh.corners[_next(g)]] == mark
        g = _around(mesh.other, g)
        if g == h:
            return bool(common == 2)


@compiled
def _may(mesh: _Mesh, h: int, place: tuple[float, float, float], marks: Array, mark: int) -> bool:
    x, y, z = place
    t = mesh.other[h]
    return _simple(mesh, h, marks, mark) and not _turned(mesh, h, x, y, z) and not _turned(mesh, t, x, y, z)


@compiled
def _take_out(mesh: _Mesh, queue: _Queue, h: int, bucket: int) -> None:
    """Join the neighbours of a triangle that vanishes."""
    a, b = mesh.other[_next(h)], mesh.other[_next(_next(h))]
    mesh.other[a], mesh.other[b] = b, a
    start = h - h % 3
    mesh.corners[start : start + 3] = _GONE
    free = not mesh.locked[mesh.corners[a]] and not mesh.locked[mesh.corners[b]]
    if free and queue.after[a] == _OUT and queue.after[b] == _OUT:
        _put(queue, a, bucket)


@compiled
def _merge(mesh: _Mesh, queue: _Queue, h: int, bucket: int) -> None:
    """Make the end of an edge the one vertex of both."""
    t = mesh.other[h]
    u, v = mesh.corners[h], mesh.corners[t]
    mesh.quadrics[v] += mesh.quadrics[u]
    g = h
    while True:
        mesh.corners[g] = v
        g = _around(mesh.other, g)
        if g == h:
            break
    _take_out(mesh, queue, h, bucket)
    _take_out(mesh, queue, t, bucket)


@kept
def collapse(points: Array, corners: Array, size: Array, limit: float) -> None:
    """Collapse edges of a surface in place, until each would cost more than `limit`.

    It stays the surface that it is: no piece vanishes, no hole is closed, no triangle turns over. Vertices of edges
    that are not of two triangles stay, and so do pieces of up to 32 triangles.

    Args:
        points: in steps of a lattice (xyz), float64, shape (n, 3).
        corners: the vertices of all triangles, int32, shape (3 m,); -1 in those that are gone.
        size: nm of a step (xyz).
        limit: area times squared distance, nm.
    """
    locked = np.zeros(len(points), np.bool_)
    other = _opposites(corners, locked)
    _lock_touching(corners, other, locked)
    _lock_small(corners, other, locked)
    mesh = _Mesh(points, corners, other, locked, _quadrics(points, corners, size))
    ends = np.full(_BUCKETS, _NONE, np.int32)
    queue = _Queue(ends, ends.copy(), np.full(len(corners), _OUT, np.int32))
    marks, mark = np.zeros(len(points), np.int32), 0
    for start in range(0, len(corners), _TILE):
        _queue_tile(mesh, queue, start, limit)
        mark = _collapse_queued(mesh, queue, limit, marks, mark)
