"""Questions asked of a model: `answer` and `stream_answer` ask one about one picture."""

from eval.answering.one_picture import Answer, answer, stream_answer

__all__ = ["Answer", "answer", "stream_answer"]
