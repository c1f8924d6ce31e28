"""The standing texts of a model card; `{repo_id}`, `{dim}` and `{subfolder}` are filled in."""

OWN_USE = """\
```python
import speaker_encoder
from speaker_encoder import SpeakerEncoder

encoder = SpeakerEncoder.from_pretrained("{repo_id}")
embeddings = encoder.encode(["a.wav", "b.wav"])  # (2, {dim}), rows L2-normalised
encoder.similarity(embeddings[:1], embeddings[1:])  # cosine
```

`transformers.AutoModel.from_pretrained("{repo_id}")` works too after `import speaker_encoder`."""
SPACE_USE = """\
For a TTS model that was trained on embeddings of the encoder that this one was fine-tuned from,
`pretrained_space.safetensors` maps to these, by a rotation:

```python
from speaker_encoder.export import load_space

mapped = load_space("{repo_id}", encoder).map(embeddings.numpy())  # (2, {dim})
```

`speaker-encoder embed --model_name {repo_id} --space pretrained` writes mapped embeddings."""
UPSTREAM_USE = {
    "ecapa": """\
With SpeechBrain alone, from files in its own format in this repository:

```python
from speechbrain.inference import EncoderClassifier, SpeakerRecognition

classifier = EncoderClassifier.from_hparams(source="{repo_id}")
embeddings = classifier.encode_batch(waveforms)  # (B, 1, {dim}), not normalised
verification = SpeakerRecognition.from_hparams(source="{repo_id}")
score, is_same = verification.verify_files("a.wav", "b.wav")
```

Its default threshold of 0.25 is that of another model: choose your own. The classifier in these
files has one class, `unknown`.""",
    "wavlm": """\
With transformers alone, from the folder `{subfolder}` of this repository:

```python
from transformers import AutoFeatureExtractor, WavLMForXVector

where = dict(subfolder="{subfolder}")
extractor = AutoFeatureExtractor.from_pretrained("{repo_id}", **where)
model = WavLMForXVector.from_pretrained("{repo_id}", **where)
inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
embedding = model(**inputs).embeddings  # (1, {dim}), not normalised
```

Embed one utterance at a time there: in a padded batch, upstream's embeddings depend on the
padding. Ours do not.""",
}
LIMITS = """\
- An embedding is about the voice in the recording it was given. Recordings of another language,
  channel, noise or speaking style than those above were not measured; the error there may be much
  higher.
- The threshold between "same" and "different" speaker belongs to the data: set it on trials of
  your own.
- Embeddings identify people: they are biometric data, and the law of many places says how these
  may be collected and kept. Get the speakers' consent.
- A decision that matters to somebody must not rest on a score alone."""
