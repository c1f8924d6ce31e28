"""What to cite: the papers behind the families of encoders and the losses, as BibTeX."""

from __future__ import annotations


def _article(key: str, author: str, title: str, venue: str, year: int) -> str:
    return _entry("article", key, author, title, f"journal = {{{venue}}}", year)


def _paper(key: str, author: str, title: str, venue: str, year: int) -> str:
    return _entry("inproceedings", key, author, title, f"booktitle = {{{venue}}}", year)


def _preprint(key: str, author: str, title: str, number: str, year: int) -> str:
    where = f"eprint = {{{number}}},\n  archivePrefix = {{arXiv}}"
    return _entry("misc", key, author, title, where, year)


def _entry(kind: str, key: str, author: str, title: str, where: str, year: int) -> str:
    return (
        f"@{kind}{{{key},\n  title = {{{title}}},\n  author = {{{author}}},\n  {where},\n"
        f"  year = {{{year}}}\n}}"
    )


_SPEECHBRAIN = _preprint(
    "speechbrain",
    "Ravanelli, Mirco and others",
    "{SpeechBrain}: A General-Purpose Speech Toolkit",
    "2106.04624",
    2021,
)
_ECAPA = _paper(
    "desplanques2020ecapa",
    "Desplanques, Brecht and Thienpondt, Jenthe and Demuynck, Kris",
    "{ECAPA-TDNN}: Emphasized Channel Attention, Propagation and Aggregation in {TDNN} Based "
    "Speaker Verification",
    "Interspeech",
    2020,
)
_XVECTOR = _paper(
    "snyder2018xvectors",
    "Snyder, David and Garcia-Romero, Daniel and Sell, Gregory and Povey, Daniel and Khudanpur, "
    "Sanjeev",
    "X-Vectors: Robust {DNN} Embeddings for Speaker Recognition",
    "ICASSP",
    2018,
)
_IN_DEFENCE = _paper(
    "chung2020defence",
    "Chung, Joon Son and Huh, Jaesung and Mun, Seongkyu and others",
    "In Defence of Metric Learning for Speaker Recognition",
    "Interspeech",
    2020,
)
_GE2E = _paper(
    "wan2018ge2e",
    "Wan, Li and Wang, Quan and Papir, Alan and Lopez Moreno, Ignacio",
    "Generalized End-to-End Loss for Speaker Verification",
    "ICASSP",
    2018,
)

ENCODER_CITATIONS = {
    "ecapa": f"{_ECAPA}\n{_SPEECHBRAIN}",
    "xvector": f"{_XVECTOR}\n{_SPEECHBRAIN}",
    "resnet": _SPEECHBRAIN,
    "dvector": _GE2E,
    "wavlm": _article(
        "chen2022wavlm",
        "Chen, Sanyuan and Wang, Chengyi and Chen, Zhengyang and others",
        "{WavLM}: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing",
        "IEEE Journal of Selected Topics in Signal Processing",
        2022,
    ),
    "wav2vec2": _paper(
        "baevski2020wav2vec2",
        "Baevski, Alexei and Zhou, Yuhao and Mohamed, Abdelrahman and Auli, Michael",
        "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations",
        "NeurIPS",
        2020,
    ),
    "hubert": _article(
        "hsu2021hubert",
        "Hsu, Wei-Ning and others",
        "{HuBERT}: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden "
        "Units",
        "IEEE/ACM Transactions on Audio, Speech, and Language Processing",
        2021,
    ),
    "unispeech-sat": _paper(
        "chen2022unispeechsat",
        "Chen, Sanyuan and others",
        "{UniSpeech-SAT}: Universal Speech Representation Learning with Speaker Aware Pre-Training",
        "ICASSP",
        2022,
    ),
    "data2vec-audio": _paper(
        "baevski2022data2vec",
        "Baevski, Alexei and others",
        "data2vec: A General Framework for Self-Supervised Learning in Speech, Vision and Language",
        "ICML",
        2022,
    ),
    "wav2vec2-bert": _preprint(
        "seamless2023",
        "{Seamless Communication} and others",
        "Seamless: Multilingual Expressive and Streaming Speech Translation",
        "2312.05187",
        2023,
    ),
    "whisper": _preprint(
        "radford2022whisper",
        "Radford, Alec and others",
        "Robust Speech Recognition via Large-Scale Weak Supervision",
        "2212.04356",
        2022,
    ),
    "mfa_conformer": _paper(
        "zhang2022mfaconformer",
        "Zhang, Yang and others",
        "{MFA-Conformer}: Multi-scale Feature Aggregation Conformer for Automatic Speaker "
        "Verification",
        "Interspeech",
        2022,
    ),
    "ska_tdnn": _paper(
        "mun2022ska",
        "Mun, Sung Hwan and others",
        "Frequency and Multi-Scale Selective Kernel Attention for Speaker Verification",
        "SLT",
        2022,
    ),
    "resnetse34l": _IN_DEFENCE,
    "vggvox40": _IN_DEFENCE,
    "resnetse34v2": _paper(
        "kwon2021ins",
        "Kwon, Yoohwan and Heo, Hee-Soo and Lee, Bong-Jin and Chung, Joon Son",
        "The Ins and Outs of Speaker Recognition: Lessons from {VoxSRC} 2020",
        "ICASSP",
        2021,
    ),
    "res2netse34": _article(
        "gao2019res2net",
        "Gao, Shang-Hua and others",
        "{Res2Net}: A New Multi-scale Backbone Architecture",
        "IEEE Transactions on Pattern Analysis and Machine Intelligence",
        2019,
    ),
    "rawnet3": _paper(
        "jung2022rawnet3",
        "Jung, Jee-weon and others",
        "Pushing the Limits of Raw Waveform Speaker Recognition",
        "Interspeech",
        2022,
    ),
}
"""Family of encoders -> BibTeX."""

LOSS_CITATIONS = {
    "ge2e": _GE2E,
    "softmax": _XVECTOR,
    "angular_prototypical": _IN_DEFENCE,
    "prototypical": _paper(
        "snell2017prototypical",
        "Snell, Jake and Swersky, Kevin and Zemel, Richard",
        "Prototypical Networks for Few-shot Learning",
        "NIPS",
        2017,
    ),
    "softmax_prototypical": _preprint(
        "heo2020clova",
        "Heo, Hee Soo and Lee, Bong-Jin and Huh, Jaesung and Chung, Joon Son",
        "Clova Baseline System for the {VoxCeleb} Speaker Recognition Challenge 2020",
        "2009.14153",
        2020,
    ),
    "triplet": _paper(
        "schroff2015facenet",
        "Schroff, Florian and Kalenichenko, Dmitry and Philbin, James",
        "{FaceNet}: A Unified Embedding for Face Recognition and Clustering",
        "CVPR",
        2015,
    ),
    "sup_con": _paper(
        "khosla2020supervised",
        "Khosla, Prannay and others",
        "Supervised Contrastive Learning",
        "NeurIPS",
        2020,
    ),
    "nt_xent": _paper(
        "chen2020simclr",
        "Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey",
        "A Simple Framework for Contrastive Learning of Visual Representations",
        "ICML",
        2020,
    ),
    "am_softmax": _article(
        "wang2018amsoftmax",
        "Wang, Feng and Cheng, Jian and Liu, Weiyang and Liu, Haijun",
        "Additive Margin Softmax for Face Verification",
        "IEEE Signal Processing Letters",
        2018,
    ),
    "aam_softmax": _paper(
        "deng2019arcface",
        "Deng, Jiankang and Guo, Jia and Xue, Niannan and Zafeiriou, Stefanos",
        "{ArcFace}: Additive Angular Margin Loss for Deep Face Recognition",
        "CVPR",
        2019,
    ),
}
"""Loss -> BibTeX."""
