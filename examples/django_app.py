"""Sends each user of a document to the one process that holds it: Django, in one file.

Run it beside `plane dev`: `PLANE_CONTROLLER=http://127.0.0.1:8080 python examples/django_app.py runserver`
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path

from plane.client import CallRefused, KeyConfig, Plane, ProcessExecutable, SpawnConfig

SERVER = ["/bin/sh", "-c", f"exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT"]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of no use here", DEBUG=False)

# One client for each process that serves; threads may share it.
plane = Plane(os.environ["PLANE_CONTROLLER"])


def open_document(request: HttpRequest, name: str) -> HttpResponse:
    spawn = SpawnConfig(executable=ProcessExecutable(command=SERVER), max_idle_seconds=300)
    try:
        answer = plane.connect(KeyConfig(name=name, namespace="documents"), spawn, user=request.GET.get("user"))
    except CallRefused as error:
        return HttpResponse(str(error), status=502)
    return HttpResponseRedirect(answer.url)


urlpatterns = [path("documents/<str:name>", open_document)]

if __name__ == "__main__":
    execute_from_command_line()
