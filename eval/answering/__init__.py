"""Questions asked of a model: `answer` and `stream_answer` ask one about one picture; `Confidences` say how sure an answer is."""

from eval.answering.confidences import Confidences
from eval.answering.one_picture import Answer, answer, stream_answer

__all__ = ["Answer", "Confidences", "answer", "stream_answer"]
