"""Chat: questions to a language model, by any server."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # who asks makes the question; nobody else loads what that takes
    from streamapp.models.llm.question import Answer, Question


class Chat(Protocol):
    """Answers questions in JSON.  It takes seconds, so no stage of the path of events waits for it.

    ``streamapp.models.llm.Question`` is what it is asked.
    """

    def ask(self, question: "Question") -> "Answer":
        """The model's answer, which the question's schema takes.

        Raises:
            Retry: there is none in time.
            Reject: the model does not answer this; another question may do.
            Refuse: the server is not what was declared.
        """
        ...
