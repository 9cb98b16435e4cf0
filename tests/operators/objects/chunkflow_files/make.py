"""What made the files here, run by chunkflow 1.2.0 (numpy 1.26); it reads sites.json: python make.py."""

import json
from pathlib import Path

import numpy as np
from chunkflow.lib.cartesian_coordinate import Cartesian
from chunkflow.point_cloud import PointCloud
from chunkflow.synapses import Synapses

HERE = Path(__file__).parent
random = np.random.default_rng(3)
pre = random.integers(0, 90, (7, 3))
post = np.concatenate([random.integers(0, 7, (12, 1)), random.integers(0, 90, (12, 3))], 1)
synapses = Synapses(
    pre,
    post=post,
    pre_confidence=random.random(7).astype("f4"),
    post_confidence=random.random(12).astype("f4"),
    resolution=Cartesian(40, 4, 4),
    users=["ada", "bob"],
    pre_users=np.array([0, 1, 0, 1, 1, 0, -1]),
    post_users=np.zeros(12, np.int32),
)
synapses.to_h5(f"{HERE}/syn.h5")
PointCloud(pre, Cartesian(40, 4, 4)).to_h5(f"{HERE}/points.h5")
sites = {
    f"s{row}": {"coord": place[::-1].tolist(), "postsynapses": [one[:0:-1].tolist() for one in post if one[0] == row]}
    for row, place in enumerate(pre)
}
for name, content in {
    "syn": synapses.json_dict,
    "dvid": synapses.to_dvid_list_of_dict(user="ada"),
    "sites": {"order": ["x", "y", "z"], "resolution": [4, 4, 40], **sites},
}.items():
    (HERE / f"{name}.json").write_text(json.dumps(content))
