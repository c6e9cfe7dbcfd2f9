# A site of one view; each session is a browser with cookies of its own.
import os
import sys
from collections import defaultdict

name = "bound" if "bound" in sys.argv else "settings"
settings = __import__(name)
settings.SECRET_KEY = "secret"
settings.ALLOWED_HOSTS = ["testserver"]
settings.ROOT_URLCONF = __name__
os.environ["DJANGO_SETTINGS_MODULE"] = name

import django
from django.db import models
from django.http import HttpResponse
from django.shortcuts import redirect
from django.test import Client
from django.urls import path

from drive import drive

django.setup()


class Order(models.Model):
    class Meta:
        app_label = "orders"
        db_table = "orders"


def order(request, id):
    if request.method == "POST":
        if id:
            Order.objects.create(id=id)
        else:  # create() would miss the row that it returns
            Order.objects.using("default").count()
        return redirect(request.path)
    return HttpResponse(Order.objects.filter(id=id).count())


urlpatterns = [path("orders/<int:id>", order)]
browsers = defaultdict(Client)


def write(session, id):
    response = browsers[session].post(f"/orders/{id}")
    assert response.status_code == 302 and response.url == f"/orders/{id}"


def read(session, id):
    return browsers[session].get(f"/orders/{id}").content.decode()


drive(write, read, lambda error: getattr(error.__cause__, "sqlstate", None))
